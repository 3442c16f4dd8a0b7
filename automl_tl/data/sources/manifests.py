"""A table that names the images: ``path,label[,split][,group]`` as CSV, TSV or Parquet, beside the files or in an archive."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import TextIOWrapper
from itertools import chain, groupby
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, Protocol, final

from automl_tl.data.sources.source import PART_NAMES, Entry, Source, file_stamp
from automl_tl.errors import BrokenSourceError

if TYPE_CHECKING:
    import pyarrow as pa

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


class _Row(NamedTuple):
    path: str
    number: int
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
        table: BinaryIO,
        name: str,
        files: Files | None = None,
        *,
        beside: Callable[[], Iterator[Entry]] | None = None,
    ) -> None:
        self.root = root
        self._files = files
        self._folder = str(PurePosixPath(name).parent) if files else str(root.parent)
        self._beside = beside
        self._rows = tuple(sorted(_rows(table, name, root)))

    def entries(self) -> Iterator[Entry]:
        """Every row of the table, then every file beside it that it doesn't name."""
        for _, same in groupby(self._rows, key=lambda row: row.path):
            yield from _entries(list(same))
        if self._beside is None:
            return
        named = {self._place(row.path) for row in self._rows}
        for entry in self._beside():
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
        """The state without the rows, which reading does not need."""
        return {**self.__dict__, "_rows": (), "_beside": None}


def is_manifest(table: BinaryIO, name: str) -> bool:
    """Whether a table has the columns of a manifest."""
    try:
        with _opened(table, name) as (header, _):
            found = _columns(header)
    except (BrokenSourceError, ValueError, OSError):
        return False
    return "path" in found and "label" in found


def _unnamed(entry: Entry) -> Entry:
    return replace(entry, label=None, split=None, ignored="not_in_table", rejected=None, detail="")


def _rows(table: BinaryIO, name: str, root: Path) -> Iterator[_Row]:
    number = 1
    try:
        with _opened(table, name) as (header, lines):
            columns = _columns(header)
            if "path" not in columns or "label" not in columns:
                raise BrokenSourceError(root, f"the columns are {', '.join(header) or '(none)'}", EXPECTED)
            for number, cells in enumerate(lines, start=2):
                if any(cells):
                    given = {key: cells[at] if at < len(cells) else "" for key, at in columns.items()}
                    path, label = _posix(given["path"]), given["label"].strip()
                    yield _Row(path, number, label, given.get("split", "").strip(), given.get("group", "").strip())
    except UnicodeDecodeError as error:
        problem = f"the text is not UTF-8 (line {number} or soon after it)"
        raise BrokenSourceError(root, problem, "a table saved as UTF-8") from error
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are children of the first two
        raise BrokenSourceError(root, f"the table can't be read ({error})", EXPECTED) from error


@contextmanager
def _opened(table: BinaryIO, name: str) -> Iterator[tuple[list[str], Iterable[Sequence[str]]]]:
    """Header and lines of a table, all as text, the lines read as they are taken; closes the table."""
    if PurePath(name).suffix.lower() == ".parquet":
        with table:
            yield _parquet(table)
        return
    with TextIOWrapper(table, encoding="utf-8-sig", newline="") as text:
        first = text.readline()
        delimiter = "\t" if name.lower().endswith(".tsv") else max(",;\t", key=first.count)
        lines = csv.reader(chain([first], text), delimiter=delimiter)
        yield [cell.strip() for cell in next(lines, [])], lines


def _parquet(table: BinaryIO) -> tuple[list[str], Iterable[Sequence[str]]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(table)
    header = [str(name) for name in file.schema_arrow.names]
    wanted = [name for name in header if name.lower() in {name for names in NAMES.values() for name in names}]
    batches = file.iter_batches(columns=wanted) if wanted else ()
    return wanted or header, (
        line for batch in batches for line in zip(*map(_texts, batch.select(wanted).columns), strict=True)
    )


def _texts(column: pa.Array) -> list[str]:
    return ["" if cell is None else str(cell) for cell in column.to_pylist()]


def _columns(header: Sequence[str]) -> dict[str, int]:
    """Where each of our columns is."""
    at = {name.lower(): number for number, name in enumerate(header)}
    found = {key: [at[name] for name in names if name in at] for key, names in NAMES.items()}
    return {key: numbers[0] for key, numbers in found.items() if numbers}


def _posix(path: str) -> str:
    if "/" not in path:
        path = path.replace("\\", "/")  # written on Windows
    return path.removeprefix("./")


def _entries(same: Sequence[_Row]) -> Iterator[Entry]:
    """The rows that name one file, of which the first counts."""
    yield _entry(same[0], {row.label for row in same})
    for row in same[1:]:
        yield Entry(f"{row.path} (line {row.number})", ignored="repeated_row")


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
    return Entry(path, label=label, split=part, group=row.group or None, rejected=rejected, detail=detail)
