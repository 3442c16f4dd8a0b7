"""Tables and lists that name images, as CSV, TSV, JSON lines, Parquet or plain text: one reader for `fit` and `predict`."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO, StringIO
from itertools import chain, groupby
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, NamedTuple, final

from automl_tl.data.sources.archives import Archive
from automl_tl.data.sources.source import SPLIT_NAMES, Entry, Source, file_stamp
from automl_tl.errors import BrokenSourceError

MANIFEST_SUFFIXES: Final = (".csv", ".tsv", ".jsonl", ".parquet")
LIST_SUFFIXES: Final = (*MANIFEST_SUFFIXES, ".txt")  # lines of a text file are paths
COLUMNS: Final = {
    "path": ("path", "file_name", "filename", "file", "image_path", "image"),
    "label": ("label", "class", "class_name"),
    "split": ("split", "part", "subset"),
    "group": ("group",),
}
COLUMN_NAMES: Final = frozenset(chain.from_iterable(COLUMNS.values()))
REQUIRED: Final = {"path", "label"}
EXPECTED: Final = "the columns path and label, and perhaps split and group"
EXPECTED_PATHS: Final = f"a column of paths named {', '.join(COLUMNS['path'])}"

ListFiles = Callable[[], Iterator[Entry]]
OpenTable = Callable[[], BinaryIO]
Lines = Iterable[tuple[int, Sequence[str]]]  # line number, cells


class ListedImage(NamedTuple):
    """A row of a table or list; empty strings stand for what it does not say."""

    path: str
    line: int
    label: str
    split: str
    group: str


def read_list(open_table: OpenTable, name: str, source: Path | str, *, with_labels: bool = False) -> Iterator[ListedImage]:
    """Read the rows of a table or list of images.

    Args:
        open_table: opens it.
        name: its file name; the suffix says the format.
        source: what errors name.
        with_labels: whether it must have a column of labels.

    Raises:
        BrokenSourceError: it is damaged, not UTF-8, or lacks a column.
    """
    expected = EXPECTED if with_labels else EXPECTED_PATHS
    try:
        with open_table() as table:
            header, lines = _parse_table(table, name)
            columns = _find_columns(header)
            if not columns.keys() >= (REQUIRED if with_labels else {"path"}):
                raise BrokenSourceError(source, f"the columns are {', '.join(header) or '(none)'}", expected)
            for line, cells in lines:
                if any(cells):
                    values = {key: cells[at] if at < len(cells) else "" for key, at in columns.items()}
                    texts = (values.get(key, "").strip() for key in ("label", "split", "group"))
                    yield ListedImage(_to_posix(values["path"]), line, *texts)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problem = f"the text is not UTF-8 (byte 0x{error.object[error.start]:02x} in line {line})"
        raise BrokenSourceError(source, problem, "text saved as UTF-8") from error
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are children of the first two
        raise BrokenSourceError(source, f"the table can't be read ({error})", expected) from error


def is_manifest(open_table: OpenTable, name: str) -> bool:
    """Whether the table called ``name`` has columns of paths and labels."""
    try:
        with open_table() as table:
            header, _ = _parse_table(table, name, errors="replace")
    except (ValueError, OSError, csv.Error):
        return False
    return _find_columns(header).keys() >= REQUIRED


@final
class ManifestSource(Source):
    """Images that a table names; each row is an entry. Paths are relative to the folder of the table.

    Args:
        root: the table, or the archive that it is in.
        name: file name of the table, or its path in ``archive``.
        archive: where the images are, if not on disk.
        list_files: lists the folder or archive in which the table was found; files that it does not name are ignored.
    """

    kind = "manifest"

    def __init__(self, root: Path, name: str, archive: Archive | None = None, list_files: ListFiles | None = None) -> None:
        self.root = root
        self._archive, self._list_files = archive, list_files
        self._folder, name = os.path.split(name) if archive else (str(root.parent), name)
        rows = read_list(lambda: BytesIO(self.read(name)), name, root, with_labels=True)
        self._rows = tuple(sorted(rows))

    def entries(self) -> Iterator[Entry]:
        """Every row of the table, then every file beside it that it does not name."""
        for _, rows in groupby(self._rows, key=lambda row: row.path):
            yield from _entries(tuple(rows))
        if self._list_files is None:
            return
        named = {self._locate(row.path) for row in self._rows}
        for entry in self._list_files():
            if os.path.normpath(entry.path) not in named:
                is_image = not entry.ignored and entry.rejected in (None, "no_class")
                yield Entry(entry.path, ignored="not_in_table") if is_image else entry

    def _locate(self, path: str) -> str:
        """Path of an image as ``list_files`` gives it."""
        if self._archive:
            return os.path.normpath(PurePosixPath(self._folder, path))
        return os.path.relpath(Path(self._folder, path), self._folder)

    def read(self, path: str) -> bytes:
        """The bytes of the image."""
        if self._archive:
            return self._archive.read(str(PurePosixPath(self._folder, path)))
        return (self.root.parent / path).read_bytes()

    def stamp(self, path: str) -> str | None:
        """Size, times and inode of the file, if it is on disk."""
        return None if self._archive else file_stamp(self.root.parent / path)

    def __getstate__(self) -> dict[str, object]:
        """The state without the rows, which reading does not need."""
        return {**self.__dict__, "_rows": (), "_list_files": None}


def _parse_table(table: BinaryIO, name: str, errors: str = "strict") -> tuple[list[str], Lines]:
    """Header and lines of a table, all as text."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".parquet":
        return _parse_parquet(table)
    text = table.read().decode("utf-8-sig", errors)
    if suffix == ".txt":
        return ["path"], ((line, [path.rstrip("\r")]) for line, path in enumerate(text.split("\n"), start=1))
    if suffix == ".jsonl":
        contents = enumerate(text.split("\n"), start=1)
        objects = [(line, _parse_object(content, line)) for line, content in contents if content.strip()]
        header = list(dict.fromkeys(name for _, row in objects for name in row))
        return header, ((line, [_to_text(row.get(name)) for name in header]) for line, row in objects)
    delimiter = "\t" if suffix == ".tsv" else max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    return [cell.strip() for cell in next(rows, [])], enumerate(rows, start=2)


def _parse_object(content: str, line: int) -> dict[str, Any]:
    try:
        row = json.loads(content)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {line} is not valid JSON: {error.msg}") from error
    if not isinstance(row, dict):
        raise ValueError(f'line {line} is not an object such as {{"path": "photos/1.jpg"}}')
    return row


def _parse_parquet(table: BinaryIO) -> tuple[list[str], Lines]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(table)
    header = [str(name) for name in file.schema_arrow.names]
    wanted = [name for name in header if name.lower() in COLUMN_NAMES]
    batches = file.iter_batches(columns=wanted) if wanted else ()
    columns = ([map(_to_text, column.to_pylist()) for column in batch.select(wanted).columns] for batch in batches)
    return wanted or header, enumerate((cells for batch in columns for cells in zip(*batch, strict=True)), start=2)


def _to_text(value: object) -> str:
    return "" if value is None else str(value)


def _find_columns(header: Sequence[str]) -> dict[str, int]:
    """Position of each of our columns that the header has, by the first of its names."""
    positions = {name.lower(): position for position, name in enumerate(header)}
    return {key: positions[name] for key, names in COLUMNS.items() for name in reversed(names) if name in positions}


def _to_posix(path: str) -> str:
    if "/" not in path:
        path = path.replace("\\", "/")  # written on Windows
    return path.removeprefix("./")


def _entries(rows: Sequence[ListedImage]) -> Iterator[Entry]:
    """The rows that name one file, of which the first counts."""
    row, labels = rows[0], {row.label for row in rows}
    rejected, detail = None, ""
    if not row.path:
        rejected, detail = "no_path", f"line {row.line} names no file"
    elif len(labels) > 1:
        rejected, detail = "conflicting_rows", f"the table gives it several labels: {', '.join(sorted(labels))}"
    elif not row.label:
        rejected, detail = "no_label", f"line {row.line} gives no label"
    elif row.split and row.split.lower() not in SPLIT_NAMES:
        rejected, detail = "unknown_split", f"the split {row.split!r} is not one of {', '.join(SPLIT_NAMES)}"
    path, split = row.path or f"(line {row.line})", SPLIT_NAMES.get(row.split.lower())
    yield Entry(path, row.label or None, split, row.group or None, rejected=rejected, detail=detail)
    yield from (Entry(f"{row.path} (line {row.line})", ignored="repeated_row") for row in rows[1:])
