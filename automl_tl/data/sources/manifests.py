"""Images that tables name: a manifest with paths and labels, or one in each split."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from itertools import groupby
from pathlib import Path, PurePath
from typing import BinaryIO, Final, NamedTuple, final

from automl_tl.data.remote import is_url
from automl_tl.data.sources.archives import Archive
from automl_tl.data.sources.files import FileFinder, FoundFile
from automl_tl.data.sources.layout import Listing, split_of
from automl_tl.data.sources.lists import BOX_COLUMNS, TABLE_SUFFIXES, ListedImage, has_column, read_header, read_list
from automl_tl.data.sources.source import SPLIT_NAMES, Entry, Source, file_stamp
from automl_tl.errors import BrokenSourceError
from automl_tl.runtime.progress import Progress
from automl_tl.values import SplitName

MAX_DEPTH: Final = 3  # folders above a table: data/train/metadata.csv
MAX_FOLDERS: Final = 20  # more at one level are class folders, where no table is looked for
TRIED_ROWS: Final = 100  # of a table, until one names an image

ListFiles = Callable[[], Iterator[Entry]]


class Table(NamedTuple):
    """A table of images: its path relative to the source, and the split that its name or folder says."""

    path: str
    split: SplitName | None = None

    @property
    def folder(self) -> str:
        """Folder of the table, relative to the source."""
        return posixpath.dirname(self.path)


class _Row(NamedTuple):
    """A row and what it means."""

    file: FoundFile
    label: str
    split: str
    group: str
    line: str  # for messages
    problem: str


@final
class ManifestSource(Source):
    """Images that tables name; each row is an entry. Paths are relative to the folder of the table.

    Args:
        root: the table, or the folder or archive with the tables.
        tables: in ``root``, which is their folder if it is a table itself.
        finder: finds the files that rows name.
        archive: where the images are, if not on disk.
        list_files: lists the folder or archive in which the tables were found; files that they do not name are ignored.
    """

    kind = "manifest"

    def __init__(
        self,
        root: Path,
        tables: Sequence[Table],
        finder: FileFinder,
        archive: Archive | None = None,
        list_files: ListFiles | None = None,
    ) -> None:
        self.root = root
        self._archive, self._list_files = archive, list_files
        self._folder = root if root.is_dir() else root.parent
        self._tables, self._finder, self._remote = tables, finder, finder.remote
        rows = [row for table in tables for row in self._read_table(table, finder, several=len(tables) > 1)]
        self._rows = tuple(sorted(_with_whole_numbers(rows), key=lambda row: (row.file.path, row.line)))
        columns = read_header(lambda: BytesIO(self.read(tables[0].path)), tables[0].path)
        names = f"(images in {columns['path']}, labels in {columns['label']})"
        self.layout = f"rows of {', '.join(table.path for table in tables)} {names}"

    def entries(self) -> Iterator[Entry]:
        """Every row of the tables, then every file beside them that they do not name."""
        for _, rows in groupby(self._rows, key=lambda row: row.file.path):
            yield from _entries(tuple(rows))
        if self._list_files is None:
            return
        named = {self._normalize(row.file.path) for row in self._rows}
        for entry in self._list_files():
            if os.path.normpath(entry.path) not in named:
                is_image = entry.ignored == "unused_folder" or (not entry.ignored and entry.rejected in (None, "no_class"))
                yield Entry(entry.path, ignored="not_in_table") if is_image else entry

    def fetch(self, progress: Progress) -> None:
        """Bring the images that are URLs; ``progress`` receives the failures, which are errors of ``read``."""
        self._remote.fetch((path for path in {row.file.path: None for row in self._rows} if is_url(path)), progress)

    def _normalize(self, path: str) -> str:
        """Path of an image as ``list_files`` gives it."""
        if is_url(path):
            return path
        return os.path.normpath(path) if self._archive else os.path.relpath(self._folder / path, self._folder)

    def read(self, path: str) -> bytes:
        """The bytes of the image."""
        if is_url(path):
            return self._remote.read(path)
        return self._archive.read(path) if self._archive else (self._folder / path).read_bytes()

    def stamp(self, path: str) -> str | None:
        """Size, times and inode of the file, if it is on disk."""
        return None if self._archive or is_url(path) else file_stamp(self._folder / path)

    def __getstate__(self) -> dict[str, object]:
        """The state without the rows, which reading does not need."""
        return {**self.__dict__, "_rows": (), "_list_files": None, "_tables": (), "_finder": None}

    def column(self, name: str) -> dict[str, str] | None:
        """Value of a column of the tables by the path of the image; ``None`` if no table has the column."""
        data = {table.path: self.read(table.path) for table in self._tables}
        if not any(has_column(partial(BytesIO, data[path]), path, name) for path in data):
            return None
        rows = (
            row for table in self._tables for row in self._read_table(table, self._finder, several=False, group_column=name)
        )
        return {row.file.path: row.group for row in rows}

    def _read_table(self, table: Table, finder: FileFinder, *, several: bool, group_column: str = "") -> Iterator[_Row]:
        name, prefix = posixpath.basename(table.path), f"{table.path} " if several else ""
        shown = self.root if self.root.name == name else f"{self.root}/{table.path}"
        data = self.read(table.path)
        open_table = lambda: BytesIO(data)  # noqa: E731
        rows = list(read_list(open_table, name, shown, with_labels=True, group_column=group_column))
        _refuse_boxes(open_table, name, rows, shown)
        for row in rows:
            file = finder.find(row.path, table.folder, table.split) if row.path.strip() else FoundFile("")
            yield _Row(file, row.label, row.split or (table.split or ""), row.group, f"{prefix}line {row.line}", row.problem)


def _refuse_boxes(open_table: Callable[[], BinaryIO], name: str, rows: Sequence[ListedImage], source: Path | str) -> None:
    """Refuse a table of boxes, several per image."""
    with open_table() as table:
        head = re.findall(r"[a-z_]+", table.read(2000).partition(b"\n")[0].decode("utf-8", "replace").lower())
    if BOX_COLUMNS & set(head) and name.lower().endswith((".csv", ".tsv")) and len({row.path for row in rows}) < len(rows):
        problem = f"it has several rows per image and columns of boxes ({', '.join(sorted(BOX_COLUMNS & set(head)))})"
        raise BrokenSourceError(source, f"{problem}: object detection", "one row with one label per image")


def _with_whole_numbers(rows: Sequence[_Row]) -> list[_Row]:
    """The rows; where all labels are whole numbers, 0.0 is 0, as programs write numbers beside missing ones."""
    labels = {row.label for row in rows if row.label}
    if not any("." in label for label in labels) or not all(re.fullmatch(r"-?\d+(\.0+)?", label) for label in labels):
        return list(rows)
    return [row._replace(label=row.label.partition(".")[0]) for row in rows]


def _entries(rows: Sequence[_Row]) -> Iterator[Entry]:
    """The rows that name one file, of which the first counts."""
    row = rows[0]
    if not row.file.path:
        for row in rows:
            yield Entry(f"({row.line})", row.label or None, rejected="no_path", detail=f"{row.line} names no file")
        return
    split = SPLIT_NAMES.get(row.split.lower()) or split_of(row.split)
    rejected, detail = _find_problem(row, rows, split)
    yield Entry(row.file.path, row.label or None, split, row.group or None, rejected=rejected, detail=detail)
    yield from (Entry(f"{row.file.path} ({other.line})", ignored="repeated_row") for other in rows[1:])


def _find_problem(row: _Row, rows: Sequence[_Row], split: SplitName | None) -> tuple[str | None, str]:
    """Why the rows that name one file cannot be used, as a code and a detail, if so."""
    if row.problem:
        return "malformed_row", row.problem
    if row.file.rejected:
        return row.file.rejected, f"{row.file.detail} ({row.line})"
    for what, values in (("labels", {row.label for row in rows}), ("splits", {row.split for row in rows})):
        if len(values) > 1:
            return "conflicting_rows", f"the table gives it several {what}: {', '.join(sorted(values))}"
    if not row.label:
        return "no_label", f"{row.line} gives no label"
    if row.split and split is None:
        return "unknown_split", f"the split {row.split!r} is not one of {', '.join(SPLIT_NAMES)}"
    return None, ""


# --------------------------------------------------------------------------------------------------------- finding tables


def find_tables(
    listing: Listing, open_file: Callable[[str], BinaryIO], finder: FileFinder, root: Path, *, max_depth: int = MAX_DEPTH
) -> list[Table]:
    """Find the tables of labeled images in a folder: the one at the top, or one for each split, at the top or in its folder.

    A table counts if one of its first rows names an image that is there. Kaggle's sample submissions do not.

    Args:
        listing: of the folder.
        open_file: opens a file of it by its path.
        finder: finds the files that rows name.
        root: what errors name.
        max_depth: levels of folders in which tables are looked for.

    Raises:
        BrokenSourceError: several tables for one split.
    """
    level = [""]
    for _ in range(max_depth):
        listed = (table for folder in level for table in _list_tables(listing, folder))
        if tables := [table for table in listed if _names_images(table, open_file, finder)]:
            break
        level = [posixpath.join(folder, name) for folder in level for name in listing.content(folder).folders]
        if len(level) > MAX_FOLDERS:
            return []
    else:
        return []
    clashes = [split for split, number in Counter(table.split for table in tables).items() if number > 1]
    if clashes or (len(tables) > 1 and None in {table.split for table in tables}):
        paths = ", ".join(table.path for table in tables)
        raise BrokenSourceError(root, f"it holds several tables of images ({paths})", f"one; or name it: {tables[0].path}")
    return tables


def _list_tables(listing: Listing, folder: str) -> Iterator[Table]:
    """Tables directly in a folder, by their names."""
    names = listing.content(folder).others
    stems = [PurePath(name).stem for name in names]
    for name, stem in zip(names, stems, strict=True):
        if name.lower().endswith(TABLE_SUFFIXES) and not re.search(r"submission|\.corrections\.csv$", name.lower()):
            yield Table(posixpath.join(folder, name), split_of(stem, stems) or _split_of_folder(folder))


def _split_of_folder(folder: str) -> SplitName | None:
    return next((split for name in reversed(folder.split("/")) if (split := split_of(name))), None)


def _names_images(table: Table, open_file: Callable[[str], BinaryIO], finder: FileFinder) -> bool:
    columns = read_header(lambda: open_file(table.path), table.path)
    if not {"path", "label"} <= columns.keys():
        return False
    try:
        rows = read_list(lambda: open_file(table.path), table.path, table.path)
        tried = [row for row, _ in zip(rows, range(TRIED_ROWS), strict=False)]
    except BrokenSourceError:
        return True  # opening it says what is wrong
    return any(row.path and not finder.find(row.path, table.folder, table.split).rejected for row in tried)
