"""A table that names the images: ``path,label[,split][,group]`` as CSV, TSV or Parquet, beside the files or in an archive."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO, StringIO
from pathlib import Path, PurePath, PurePosixPath
from typing import Final, Protocol, final

from automl_tl.data.sources.source import PART_NAMES, Entry, Source, file_stamp
from automl_tl.errors import BrokenSourceError

__all__ = ["MANIFEST_SUFFIXES", "Files", "ManifestSource", "is_manifest"]

MANIFEST_SUFFIXES: Final = (".csv", ".tsv", ".parquet")
NAMES: Final = {
    "path": ("path", "file_name", "filename", "file", "image_path", "image"),
    "label": ("label", "class", "class_name"),
    "split": ("split", "part", "subset"),
    "group": ("group",),
}
EXPECTED: Final = "the columns path and label, and perhaps split and group"


class Files(Protocol):
    """Where the named images are read from."""

    def read(self, path: str) -> bytes:
        """The bytes of one file."""


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    path: str
    label: str
    split: str
    group: str


@final
class ManifestSource(Source):
    """Images that a table names; each row is an entry. Paths are relative to the table's folder.

    If the table was found in a folder or archive that was asked for, ``beside`` gives the files there, and those that the
    table doesn't name are ignored with a count.
    """

    kind = "manifest"

    def __init__(
        self,
        root: Path,
        data: bytes,
        name: str,
        files: Files | None = None,
        *,
        beside: Callable[[], Iterator[Entry]] | None = None,
    ) -> None:
        self.root = root
        self._files = files
        self._folder = str(PurePosixPath(name).parent) if files else str(root.parent)
        self._beside = beside
        self._entries = tuple(_entries(_rows(data, name, root)))

    def entries(self) -> Iterator[Entry]:
        """Every row of the table, then every file beside it that it doesn't name."""
        yield from self._entries
        named = {self._place(entry.path) for entry in self._entries} if self._beside else set()
        for entry in self._beside() if self._beside else ():
            if os.path.normpath(entry.path) not in named:
                yield entry if entry.ignored or entry.rejected not in (None, "no_class") else _unnamed(entry)

    def _place(self, path: str) -> str:
        """Where a row's file lies, as the listing of what is beside the table names it."""
        if self._files:
            return os.path.normpath(PurePosixPath(self._folder, path))
        return os.path.relpath(Path(self._folder, path), self._folder)

    def read(self, path: str) -> bytes:
        """The bytes of the image."""
        return self._files.read(path) if self._files else (self.root.parent / path).read_bytes()

    def stamp(self, path: str) -> str | None:
        """Size, times and inode of the file, if it lies on disk."""
        return None if self._files else file_stamp(self.root.parent / path)

    def __getstate__(self) -> dict[str, object]:
        """Without the rows: who only reads doesn't need them, and there may be millions."""
        return {**self.__dict__, "_entries": (), "_beside": None}


def is_manifest(data: bytes, name: str) -> bool:
    """Whether a table has the columns of a manifest."""
    try:
        found = _columns(_table(data, name)[0])
    except (BrokenSourceError, ValueError, OSError):
        return False
    return "path" in found and "label" in found


def _unnamed(entry: Entry) -> Entry:
    return replace(entry, label=None, part=None, ignored="not_in_table", rejected=None, detail="")


def _rows(data: bytes, name: str, root: Path) -> Iterator[_Row]:
    try:
        header, lines = _table(data, name)
    except UnicodeDecodeError as error:
        raise BrokenSourceError(root, f"the text is not UTF-8 (byte {error.start})", "a table saved as UTF-8") from error
    except (OSError, ValueError) as error:  # pyarrow's errors are children of these
        raise BrokenSourceError(root, f"the table can't be read ({error})", EXPECTED) from error
    columns = _columns(header)
    if "path" not in columns or "label" not in columns:
        raise BrokenSourceError(root, f"the columns are {', '.join(header) or '(none)'}", EXPECTED)
    for number, cells in enumerate(lines, start=2):
        if any(cells):
            given = {key: cells[at] if at < len(cells) else "" for key, at in columns.items()}
            path, label = _posix(given["path"]), given["label"].strip()
            yield _Row(number, path, label, given.get("split", "").strip(), given.get("group", "").strip())


def _table(data: bytes, name: str) -> tuple[list[str], Iterable[Sequence[str]]]:
    """Header and lines of a table, all as text."""
    if PurePath(name).suffix.lower() == ".parquet":
        return _parquet(data)
    text = data.decode("utf-8-sig")
    first = text.split("\n", 1)[0]
    delimiter = "\t" if name.lower().endswith(".tsv") else max(",;\t", key=first.count)
    lines = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    return [cell.strip() for cell in next(lines, [])], lines


def _parquet(data: bytes) -> tuple[list[str], Iterable[Sequence[str]]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(BytesIO(data))
    header = [str(name) for name in file.schema_arrow.names]
    wanted = [name for name in header if name.lower() in {name for names in NAMES.values() for name in names}]
    columns = file.read(columns=wanted).to_pydict() if wanted else {}
    lines = zip(*(["" if cell is None else str(cell) for cell in columns[name]] for name in wanted), strict=True)
    return wanted or header, lines


def _columns(header: Sequence[str]) -> dict[str, int]:
    """Where each of our columns is."""
    at = {name.lower(): number for number, name in enumerate(header)}
    found = {key: [at[name] for name in names if name in at] for key, names in NAMES.items()}
    return {key: numbers[0] for key, numbers in found.items() if numbers}


def _posix(path: str) -> str:
    if "/" not in path:
        path = path.replace("\\", "/")  # written on Windows
    return path.removeprefix("./")


def _entries(rows: Iterable[_Row]) -> Iterator[Entry]:
    first: dict[str, _Row] = {}
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row.path, set()).add(row.label)
        if row.path in first:
            yield Entry(f"{row.path} (line {row.number})", ignored="repeated_row")
        else:
            first[row.path] = row
    for row in first.values():
        yield _entry(row, labels[row.path])


def _entry(row: _Row, labels: set[str]) -> Entry:
    path, label = row.path or f"(line {row.number})", row.label or None
    rejected, detail = None, ""
    if not row.path:
        rejected, detail = "no_path", f"line {row.number} names no file"
    elif len(labels) > 1:
        rejected, detail = "conflicting_rows", f"the table gives it several labels: {', '.join(sorted(labels))}"
    elif label is None:
        rejected, detail = "no_label", f"line {row.number} gives no label"
    elif row.split and row.split.lower() not in PART_NAMES:
        rejected, detail = "unknown_split", f"the split {row.split!r} is none of {', '.join(PART_NAMES)}"
    part = PART_NAMES.get(row.split.lower())
    return Entry(path, label=label, part=part, group=row.group or None, rejected=rejected, detail=detail)
