"""The data report of a source: findings, images left out, groups, what training needs, and a table of proposed fixes."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

from automl_tl.data.audit.augmentations import augmentation_findings, find_exports, leave_out_exports, propose_augmentations
from automl_tl.data.audit.duplicates import duplicate_findings, leave_out_copies, leave_out_leaks, near_duplicate_pairs
from automl_tl.data.audit.findings import class_findings, correction_findings, file_findings, image_findings
from automl_tl.data.audit.groups import find_bursts, given_group_findings, group_findings, group_images, join_groups
from automl_tl.data.audit.multi_label import multi_label_findings
from automl_tl.data.audit.order import measure_order, order_findings
from automl_tl.data.corrections import Corrections, correct_labels
from automl_tl.data.facts import Thumbnails
from automl_tl.data.index import ScanElsewhere, exclude, scan, with_source_labels
from automl_tl.data.sources.source import Source
from automl_tl.errors import BrokenSourceError, TooFewImagesError
from automl_tl.runtime.paths import cache_dir, usable_cache
from automl_tl.runtime.progress import Progress
from automl_tl.values import AppliedCorrections, DataReport, DatasetIndex, Finding, ImageRecord, LeftOut, SplitName

SEVERITIES: Final = ("error", "warning", "info")


def scan_and_audit(
    source: Source,
    progress: Progress,
    *,
    corrections: Corrections | None = None,
    allow_empty: bool = False,
    group_by: str | None = None,
    workers: ScanElsewhere | None = None,
) -> tuple[DatasetIndex, DataReport]:
    """Scan a source, correct its labels, and report what is wrong with it.

    Args:
        source: what to read.
        progress: receives progress.
        corrections: decisions about single images.
        allow_empty: return an index without images rather than raise.
        group_by: ``order``, ``folder``, ``none``, a column of the table, or a regular expression on the path.
        workers: scans on other machines.

    Raises:
        NoImagesError: no file of the source is a usable image.
        DataError: images cannot be grouped so.
    """
    cache = usable_cache(cache_dir())
    with Thumbnails(cache) as thumbnails:
        index = scan(
            source, cache_dir=cache, progress=progress, thumbnails=thumbnails, workers=workers, allow_empty=allow_empty
        )
        index = group_images(index, group_by, source.column(group_by) if group_by else None)
        index, applied = correct_labels(index, corrections, progress)
        return index, audit_index(index, thumbnails, applied, group_by=group_by)


def audit_index(
    index: DatasetIndex,
    thumbnails: Mapping[str, bytes] | None = None,
    corrections: AppliedCorrections | None = None,
    *,
    group_by: str | None = None,
) -> DataReport:
    """Report findings (worst first), images left out, and groups that every split keeps together. Deterministic.

    Args:
        index: of the scan, with its labels corrected.
        thumbnails: by digest, of the same scan; without them, near-duplicates are not looked for.
        corrections: what was corrected; excluded images are left out, and take no part in any other finding.
        group_by: of ``group_images``; absent: the order of the files is tested; ``order``: it counts, whatever the test says.
    """
    thumbnails = {} if thumbnails is None else thumbnails
    excluded = _leave_out_excluded(corrections)
    considered = index.model_copy(update={"images": exclude(index.images, (row.path for row in excluded))})
    copies = leave_out_copies(considered.images)
    distinct = exclude(considered.images, (row.path for row in copies))
    near_pairs, exports = near_duplicate_pairs(distinct, thumbnails), find_exports(distinct, thumbnails)
    leaks = {row.path: row for row in (*leave_out_exports(exports), *leave_out_leaks(near_pairs))}
    left_out = sorted((*excluded, *copies, *leaks.values()), key=lambda row: row.path)
    used = exclude(index.images, (row.path for row in left_out))
    bursts, augmented = find_bursts(used), propose_augmentations(used, thumbnails)
    named = {image.path for group in (*exports.groups, *augmented) for image in group}
    pairs = ((pair.first.path, pair.second.path) for pair in near_pairs)
    groups = (*_given_groups(used), *bursts, *pairs, *(tuple(image.path for image in group) for group in exports.groups))
    grouped = {path for group in groups for path in group} - {row.path for row in left_out}
    joined = tuple(group for group in join_groups(grouped, groups) if len(group) > 1)
    tested = exclude(with_source_labels(index.images, corrections), (row.path for row in (*copies, *leaks.values())))
    ordered = measure_order(tested, joined, thumbnails) if group_by in (None, "order") else None
    unnamed = exclude(used, named) if group_by in (None, "order", "none") else ()
    kept_together = group_by == "order" or (ordered is not None and ordered.is_structured)
    findings = (
        *correction_findings(corrections, {image.digest: image.split for image in index.images}),
        *file_findings(considered),
        *multi_label_findings(considered),
        *duplicate_findings(considered.images, left_out, near_pairs),
        *augmentation_findings(exports, augmented),
        *class_findings(used, index.classes),
        *image_findings(used),
        *group_findings(used, bursts, unnamed, thumbnails, kept_together=kept_together),
        *order_findings(ordered, requested=group_by == "order"),
        *given_group_findings(used, group_by),
    )
    return DataReport(
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        left_out=tuple(left_out),
        groups=joined,
        fingerprint=_fingerprint(used),
        corrections=corrections,
    )


def _leave_out_excluded(corrections: AppliedCorrections | None) -> list[LeftOut]:
    images = corrections.images if corrections else ()
    detail = f"a decision in {corrections.file}" if corrections else ""
    return [LeftOut(path=image.path, reason="excluded", detail=detail) for image in images if image.after is None]


def leave_out(index: DatasetIndex, report: DataReport, rows: Sequence[LeftOut]) -> DataReport:
    """Leave further images out.

    Args:
        index: of the scan.
        report: of the audit.
        rows: the images, with reasons.

    Returns:
        The new report, with the fingerprint of what is left.
    """
    if not rows:
        return report
    left_out = tuple(sorted((*report.left_out, *rows), key=lambda row: row.path))
    used = exclude(index.images, (row.path for row in left_out))
    return report.model_copy(update={"left_out": left_out, "fingerprint": _fingerprint(used)})


def check_learnable(index: DatasetIndex, report: DataReport) -> None:
    """Refuse classes that cannot be learned and measured, all of them at once.

    Args:
        index: of the scan.
        report: of the audit.

    Raises:
        TooFewImagesError: fewer than two classes, or classes with fewer than two images in use, or with none outside the
            given test split.
    """
    used = exclude(index.images, (row.path for row in report.left_out))
    all_counts = Counter(image.label for image in used)
    training_counts = Counter(image.label for image in used if image.split != "test")
    usable = {name: all_counts[name] for name in index.classes}
    if len(+training_counts) < 2:
        raise TooFewImagesError("A classifier needs two classes or more to learn from", usable, "Add images of another class.")
    small = {name: usable[name] for name in usable if usable[name] < 2 or not training_counts[name]}
    if small:
        problem = f"{len(small)} of {len(usable)} classes have fewer than two usable images, or all of them in the test split"
        raise TooFewImagesError(problem, small, "Add images to these classes, or take their folders out.")


def check_measurable(splits: Mapping[SplitName, Sequence[ImageRecord]]) -> None:
    """Refuse an empty test split.

    Raises:
        TooFewImagesError: the test split is empty.
    """
    if not splits["test"]:
        counts = dict(Counter(image.label for images in splits.values() for image in images))
        problem = "No image can be put aside to measure on: all images of each class belong together, as copies or one group"
        raise TooFewImagesError(problem, counts, "Add images that were taken apart from these, or give a test folder.")


def _given_groups(used: Sequence[ImageRecord]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for image in used:
        if image.group is not None:
            groups[image.group].append(image.path)
    return list(groups.values())


def _fingerprint(used: Sequence[ImageRecord]) -> str:
    rows = sorted(f"{image.digest} {image.label}" for image in used)
    return sha256("\n".join(rows).encode()).hexdigest()


# --------------------------------------------------------------------------------------------------------------- fixes

BROKEN: Final = ("empty", "truncated", "damaged", "not_an_image", "unreadable", "missing_file", "no_bytes")
GROUPING: Final = ("name_groups", "near_duplicates", "bursts", "augmentations", "augmented_names")
TO_REVIEW: Final = (
    *("damaged_images", "near_duplicates_of_two_classes", "blank_images", "extreme_aspect", "tiny_images"),
    *("dark_images", "bright_images", "blurred_images", "outliers", "nested_folders"),
)


Action = Literal["delete", "relabel", "group", "replace", "review"]


class Fix(NamedTuple):
    """One thing to do to one image: ``value`` is the new label or the group, empty for the other actions."""

    path: str
    label: str
    action: Action
    value: str
    reason: str


def propose_fixes(index: DatasetIndex, report: DataReport) -> list[Fix]:
    """Propose what to do about everything in ``report``, sorted by path; an image may have several proposals.

    Args:
        index: of the scan.
        report: of the audit.
    """
    labels = {image.path: image.label for image in index.images}
    fixes = [
        Fix(row.path, row.label or "", "replace" if row.reason in BROKEN else "review", "", f"{row.reason}: {row.detail}")
        for row in index.rejected
    ]
    for row in report.left_out:
        if row.reason == "excluded":  # it is decided
            continue
        review = row.reason == "conflicting_label"
        fixes.append(Fix(row.path, labels[row.path], "review" if review else "delete", "", f"{row.reason}: {row.detail}"))
    for finding in report.findings:
        fixes += _fixes_of(finding, labels)
    return sorted(set(fixes))


def write_fixes(file: Path, fixes: Sequence[Fix]) -> None:
    """Write ``fixes`` as CSV with a header.

    Args:
        file: the CSV to write; an existing file is replaced.
        fixes: of ``propose_fixes``.
    """
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(Fix._fields)
        writer.writerows(fixes)


def read_fixes(file: Path) -> list[Fix]:
    """Read a table of ``write_fixes``, which a person may have edited with a spreadsheet; ``tl review`` shows its rows.

    Raises:
        BrokenSourceError: there is no such file, or not such a table.
    """
    expected = f"a table as `tl data check IMAGES --fix {file.name}` writes it, with the columns {', '.join(Fix._fields)}"
    try:
        text = file.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)  # spreadsheets choose it by the language
        reader = csv.DictReader(StringIO(text, newline=""), delimiter=delimiter)
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BrokenSourceError(file, f"the table cannot be read ({error})", expected) from error
    if missing := [name for name in ("path", "action", "value") if name not in (reader.fieldnames or ())]:
        raise BrokenSourceError(file, f"there is no column {missing[0]}", expected)
    if unknown := sorted({row["action"] or "" for row in rows} - set(get_args(Action))):
        raise BrokenSourceError(file, f"there is no action {unknown[0]!r} ({', '.join(get_args(Action))})", expected)
    fixes = [Fix(*(row.get(name) or "" for name in Fix._fields)) for row in rows]  # type: ignore[arg-type]
    return fixes


def _fixes_of(finding: Finding, labels: Mapping[str, str]) -> Iterator[Fix]:
    if finding.code == "label_issues":
        for path in finding.paths:
            yield Fix(path, labels[path], "relabel", str(finding.facts[path]), finding.code)
    elif finding.code in GROUPING:
        for group in finding.groups:
            for path in group:
                yield Fix(path, labels[path], "group", group[0], finding.code)
    elif finding.code in TO_REVIEW:
        for path in finding.paths:
            yield Fix(path, labels[path], "review", "", finding.code)
