"""Corrections: what a person decided about single images, in a CSV file beside the data that is only ever appended to.

`tl review` writes the file, every command that reads labeled images applies it (``--corrections``). Rows are matched by the
image digest, so a decision holds for all copies of an image and stays valid when files are renamed. The last row of a digest
counts. Nothing here moves, renames or changes an image.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Final, NamedTuple, get_args
from unicodedata import normalize

from filelock import lock_descriptor

from automl_tl.data.remote import file_name_of, is_url
from automl_tl.errors import BrokenSourceError, SourceNotFoundError, near_name
from automl_tl.runtime.file_names import file_name
from automl_tl.runtime.formatting import first_few
from automl_tl.runtime.progress import Progress
from automl_tl.values import AppliedCorrections, CorrectedImage, DatasetIndex, Decision, ImageRecord
from automl_tl_registry.storage import Disk

SUFFIX: Final = ".corrections.csv"
DECISIONS: Final = get_args(Decision)
FIXES_HEADER: Final = "path,label,action,value,reason"  # of `tl data check --fix`
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
LATER_ROW: Final = re.compile(rb"\n[0-9a-fA-F]{64},")
LOCK_POLL_S: Final = 0.01  # a row is written in a few milliseconds
MAX_PROBLEMS: Final = 3  # named in an error


class Correction(NamedTuple):
    """One decision about the image with ``digest``, as a row of the file."""

    digest: str
    """sha256 of the file's bytes, hexadecimal, as in the index; of a file that cannot be read, of its path."""
    path: str
    """Where the image was, for people; not used for matching."""
    decision: str
    """``relabel`` (to ``label``), ``keep`` (the label is right), ``exclude`` (do not use), ``undo`` (no decision)."""
    label: str = ""
    """The correct class of ``relabel``, else empty."""
    previous: str = ""
    """The class at the time of the decision."""
    kind: str = ""
    """Why the image was looked at: label_issues, outliers ..."""
    decided_at: str = ""
    """ISO 8601 with time zone; the writer sets it if it is empty."""


HEADER: Final = list(Correction._fields)
EXPECTED: Final = f"a corrections file as `tl review` writes it, with the header {','.join(HEADER)}"


@dataclass(frozen=True)
class Corrections:
    """The decisions that count: of each image the last one, unless it was undone."""

    file: Path
    by_digest: Mapping[str, Correction] = field(default_factory=dict)
    incomplete: str = ""
    """The last line, if writing it was interrupted; it does not count."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of images by decision."""
        decisions = [row.decision for row in self.by_digest.values()]
        return {decision: decisions.count(decision) for decision in DECISIONS if decision != "undo"}

    @property
    def digest(self) -> str:
        """sha256 over the decisions; independent of their order, their times and of what was undone."""
        rows = sorted(f"{row.digest} {row.decision} {row.label}" for row in self.by_digest.values())
        return sha256("\n".join(rows).encode()).hexdigest()


def corrections_file(images: str | Path) -> Path:
    """Return the default place of the corrections of a source: beside it, ``flowers.corrections.csv`` for ``flowers/``.

    Those of a URL are in the working directory.
    """
    images = file_name(file_name_of(images)) if is_url(images) else images
    source = Path(os.path.abspath(images))  # noqa: PTH100 - links are not followed: the file is where the user sees the images
    return source.with_name(f"{source.name or 'images'}{SUFFIX}")


def read_corrections(file: str | Path) -> Corrections:
    """Read a corrections file; an incomplete last line is left to the next writer, and does not count.

    Raises:
        SourceNotFoundError: there is no such file, or it cannot be read.
        BrokenSourceError: it is something else, or has rows that cannot be understood; all of them are named.
    """
    file = Path(file)
    try:
        with file.open("rb") as stream:
            if os.name == "nt":  # there a lock also keeps readers out: wait for the writer
                lock_descriptor(stream.fileno(), poll_interval=LOCK_POLL_S)
            content = stream.read()
    except OSError as error:
        raise SourceNotFoundError(file, EXPECTED) from error
    complete, incomplete = _complete_rows(content, file)
    by_digest: dict[str, Correction] = {}
    for row in _parse(complete, file):
        by_digest.pop(row.digest, None)  # so that the order is that of the decisions
        if row.decision != "undo":
            by_digest[row.digest] = row
    return Corrections(file, by_digest, incomplete.decode(errors="replace"))


def parse_rows(content: bytes, file: Path, *, is_later: bool) -> tuple[list[Correction], int]:
    """Parse a corrections file, or only what was appended to it.

    Args:
        content: of the file, or what follows rows that are known.
        file: what errors name.
        is_later: ``content`` does not begin with the header.

    Returns:
        The complete rows in their order, undone decisions included, and how many bytes they take.

    Raises:
        BrokenSourceError: it is something else, or has rows that cannot be understood.
    """
    header = _encode([HEADER]) if is_later else b""
    complete, _ = _complete_rows(header + content, file)
    return list(_parse(complete, file)), len(complete) - len(header)


def append_correction(file: str | Path, correction: Correction) -> Correction:
    """Add a decision to a corrections file, which is created if missing; durable when this returns.

    Each row is one write under a file lock, so several processes may append. A last line whose writing was interrupted is
    removed first.

    Args:
        file: the corrections file.
        correction: the decision; ``decided_at`` is set to now if it is empty.

    Returns:
        The row as it was written.

    Raises:
        BrokenSourceError: the file is something else; nothing is written.
        ValueError: the correction is not valid.
        OSError: it cannot be written or locked.
    """
    file, now = Path(file), datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    correction = correction._replace(decided_at=correction.decided_at or now, label=normalize("NFC", correction.label))
    if problem := _find_problem(correction):
        raise ValueError(problem)
    is_new = not file.exists()
    with file.open("a+b") as stream:
        # 1) Wait for other writers. The lock is that of this descriptor: closing it, or the end of the process, releases it.
        lock_descriptor(stream.fileno(), poll_interval=LOCK_POLL_S)
        # 2) Repair what an interrupted writer left; a complete row that only lacks its line break stays.
        stream.seek(0)
        content = stream.read()
        complete, incomplete = _complete_rows(content, file)
        if incomplete:
            stream.truncate(len(complete))
        # 3) Append with one write, then reach the disk.
        line_break = b"" if complete.endswith(b"\n") or not complete else b"\n"
        stream.write(line_break + _encode([correction] if complete else [HEADER, correction]))
        stream.flush()
        os.fsync(stream.fileno())
    if is_new:
        Disk().sync_folder(file.absolute().parent)
    return correction


def apply_corrections(index: DatasetIndex, corrections: Corrections) -> tuple[DatasetIndex, AppliedCorrections]:
    """Give the images of an index their correct labels.

    Args:
        index: of the scan.
        corrections: matched with the images by digest; a label that is not a class yet makes a new class.

    Returns:
        The index with corrected labels and classes, and what was done. Excluded images stay in the index, for the audit to
        leave out; excluded files that cannot be used anyway are counted as ignored.
    """
    by_digest, changed = corrections.by_digest, _changes(index.images, corrections)
    after = {image.path: image.after for image in changed}
    images = tuple(replace(image, label=after.get(image.path) or image.label) for image in index.images)
    unchanged = [(image.path, by_digest[image.digest]) for image in index.images if image.digest in by_digest]
    unchanged = [(path, row) for path, row in unchanged if path not in after]
    is_excluded = [row.digest in by_digest and by_digest[row.digest].decision == "exclude" for row in index.rejected]
    excluded_files = tuple(row.path for row, excluded in zip(index.rejected, is_excluded, strict=True) if excluded)
    here = {image.digest for image in index.images} | {row.digest for row in index.rejected}
    named = {*index.classes, *index.empty_classes}
    classes = tuple(sorted({image.label for image in images if after.get(image.path, "") is not None}))
    corrected = index.model_copy(
        update={
            "images": images,
            "classes": classes,
            "empty_classes": tuple(sorted(named.difference(classes))),
            "rejected": tuple(row for row, excluded in zip(index.rejected, is_excluded, strict=True) if not excluded),
            "ignored": {**index.ignored, **({"excluded": len(excluded_files)} if excluded_files else {})},
        }
    )
    return corrected, AppliedCorrections(
        file=str(corrections.file),
        digest=corrections.digest,
        images=tuple(changed),
        excluded_files=excluded_files,
        kept=tuple(path for path, row in unchanged if row.decision == "keep"),
        unchanged=tuple(path for path, row in unchanged if row.decision == "relabel"),
        unmatched=tuple(row.path for row in by_digest.values() if row.digest not in here),
        new_classes={name: near_name(name, named, "") for name in classes if name not in named},
    )


def correct_labels(
    index: DatasetIndex, corrections: Corrections | None, progress: Progress
) -> tuple[DatasetIndex, AppliedCorrections | None]:
    """Apply corrections, if any, and say how many there are.

    Args:
        index: of the scan.
        corrections: decisions about single images.
        progress: receives the counts, and the decisions that match no image.
    """
    if corrections is None:
        return index, None
    index, applied = apply_corrections(index, corrections)
    progress.info(f"corrections: {applied.words} ({applied.file})")
    if applied.unmatched:
        named = ", ".join(first_few(applied.unmatched, "images"))
        progress.info(f"corrections of images that are not here: {len(applied.unmatched)} ({named})")
    return index, applied


def _changes(images: Sequence[ImageRecord], corrections: Corrections) -> list[CorrectedImage]:
    """The images that get another label or are excluded."""
    changed = []
    for image in images:
        row = corrections.by_digest.get(image.digest)
        if row and (row.decision == "exclude" or (row.decision == "relabel" and row.label != image.label)):
            after = row.label if row.decision == "relabel" else None
            changed.append(CorrectedImage(digest=image.digest, path=image.path, before=image.label, after=after))
    return changed


# ---------------------------------------------------------------------------------------------------------------- rows


def _complete_rows(content: bytes, file: Path) -> tuple[bytes, bytes]:
    """Split the bytes of a file into complete rows and an incomplete last line, empty if there is none.

    A row ends with a line break outside of quotes. One without a line break is complete if its last cell is a whole time:
    editors leave the last line break out.

    Raises:
        BrokenSourceError: the header is another one, so nothing in the file may be touched.
    """
    # 1) The header, also one whose writing was interrupted.
    header = _encode([HEADER])
    if header.startswith(content):
        return (content, b"") if len(content) in (0, len(header) - 1, len(header)) else (b"", content)
    first = content.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace").strip()
    if next(csv.reader([first]), []) != HEADER:
        raise BrokenSourceError(file, _describe_header(first), EXPECTED)
    # 2) The last line break outside of quotes, which are doubled inside of quotes.
    end = len(content)
    while (end := content.rfind(b"\n", 0, end)) >= 0 and content.count(b'"', 0, end) % 2:
        pass
    # 3) What follows it.
    complete, last = content[: end + 1], content[end + 1 :]
    if LATER_ROW.search(last):  # not an interrupted row, which nothing follows
        line = complete.count(b"\n") + 1
        raise BrokenSourceError(file, f"a quote that begins in line {line} is not closed", EXPECTED)
    with suppress(UnicodeDecodeError, csv.Error):
        cells = next(csv.reader([last.decode()], strict=True), [])
        if not last.strip() or (len(cells) == len(HEADER) and TIME.fullmatch(cells[-1].strip())):
            return content, b""
    return complete, last


def _parse(content: bytes, file: Path) -> Iterator[Correction]:
    """Yield the checked rows of complete bytes, whose header is known to be right."""
    try:
        reader = csv.reader(StringIO(content.decode("utf-8-sig"), newline=""))
        rows = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BrokenSourceError(file, f"it is not a CSV file in UTF-8 ({error})", EXPECTED) from error
    problems = []
    for line, cells in rows[1:]:
        if len(cells) != len(HEADER):
            problems.append(f"line {line} has {len(cells)} cells instead of {len(HEADER)}")
            continue
        row = Correction(*cells)
        row = row._replace(digest=row.digest.strip().lower(), decision=row.decision.strip(), label=normalize("NFC", row.label))
        if problem := _find_problem(row):
            problems.append(f"line {line}: {problem}")
        else:
            yield row
    if problems:
        more = f" and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        raise BrokenSourceError(file, "; ".join(problems[:MAX_PROBLEMS]) + more, EXPECTED)


def _find_problem(row: Correction) -> str:
    """Say what is wrong with a row, empty if nothing is."""
    if not DIGEST.fullmatch(row.digest):
        return f"{row.digest!r} is not a sha256 digest of 64 hexadecimal digits"
    if row.decision not in DECISIONS:
        near = near_name(row.decision, DECISIONS, f"The decisions are {', '.join(DECISIONS)}.")
        return f"unknown decision {row.decision!r}. {near}"
    if row.decision == "relabel" and not row.label.strip():
        return "the decision relabel needs a label"
    return ""


def _describe_header(line: str) -> str:
    """Say what the first line of a foreign file is."""
    if line == FIXES_HEADER:
        return "these are proposed fixes; `tl review IMAGES --fixes` shows them, and writes what you decide as corrections"
    return f"its first line is {line[:80]!r}"


def _encode(rows: Iterable[Sequence[str]]) -> bytes:
    text = StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="backslashreplace")
