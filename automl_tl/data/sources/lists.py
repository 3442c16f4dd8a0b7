"""Tables and lists that name images, as CSV, TSV, JSON lines, Parquet or plain text: one reader for `fit` and `predict`."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, NamedTuple

from automl_tl.data.image_formats import has_image_suffix
from automl_tl.errors import BrokenSourceError

TABLE_SUFFIXES: Final = (".csv", ".tsv", ".jsonl", ".parquet")
LIST_SUFFIXES: Final = (*TABLE_SUFFIXES, ".json", ".txt")  # lines of a text file are paths
# Names of columns in lower case, the most specific first. Kaggle calls paths `id` and `image_id`, Label Studio labels `choice`.
COLUMNS: Final = {
    "path": (
        *(
            "path",
            "file_name",
            "filename",
            "file",
            "image_path",
            "img_path",
            "file_path",
            "filepath",
            "filepaths",
            "image_file",
        ),
        *("image", "img", "image_name", "image_id", "id_code", "id"),
    ),
    "label": (
        *("label", "class", "class_name", "label_name", "labels", "category", "class_id", "classid", "target", "choice"),
        *("species", "breed", "diagnosis"),
    ),
    "split": ("split", "part", "subset"),
    "group": ("group",),
}
COLUMN_NAMES: Final = frozenset(chain.from_iterable(COLUMNS.values()))
EXPECTED: Final = "the columns path and label, and perhaps split and group"
EXPECTED_PATHS: Final = f"a column of paths named {', '.join(COLUMNS['path'])}"
MISSING: Final = frozenset(("nan", "<na>", "#n/a", "null", "nat"))  # what programs write for "nothing"
BOX_COLUMNS: Final = frozenset(("bbox", "xmin", "x_min", "xmax", "x_max", "ymin", "ymax", "box", "boxes"))
UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")

OpenTable = Callable[[], BinaryIO]
Lines = Iterable[tuple[int, Sequence[str]]]  # line number, cells


class ListedImage(NamedTuple):
    """A row of a table or list; empty strings stand for what it does not say."""

    path: str  # as it is written there; see ``files.FileFinder``
    line: int
    label: str = ""
    split: str = ""
    group: str = ""
    problem: str = ""  # why the row cannot be read


def read_list(
    open_table: OpenTable, name: str, source: Path | str, *, with_labels: bool = False, group_column: str = ""
) -> Iterator[ListedImage]:
    """Read the rows of a table or list of images.

    Args:
        open_table: opens it.
        name: its file name; the suffix says the format.
        source: what errors name.
        with_labels: whether it must have a column of labels.
        group_column: the column that says the group, if there is one of this name; else ``group``.

    Yields:
        Rows with anything in them.

    Raises:
        BrokenSourceError: it is damaged, not in Unicode, or lacks a column.
    """
    expected = EXPECTED if with_labels else EXPECTED_PATHS
    try:
        with open_table() as table:
            header, lines = _parse_table(table, name, group_column=group_column)
            columns = _find_columns(header)
            if group_column in header:
                columns["group"] = header.index(group_column)
            if "path" not in columns or (with_labels and "label" not in columns):
                raise BrokenSourceError(source, _describe_columns(header, lines, columns), expected)
            for line, cells in lines:
                if any(cells):
                    yield _to_row(line, cells, columns, len(header))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problem = f"the text is not UTF-8 (byte 0x{error.object[error.start]:02x} in line {line})"
        raise BrokenSourceError(source, problem, "text saved as UTF-8") from error
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are children of the first two
        raise BrokenSourceError(source, f"the table can't be read ({error})", expected) from error


def read_header(open_table: OpenTable, name: str) -> dict[str, str]:
    """Read which columns a table has.

    Args:
        open_table: opens it.
        name: its file name; the suffix says the format.

    Returns:
        ``path``, ``label``, ``split`` and ``group``, as far as they are there, with the table's own names; nothing if the
        file is not a table that can be read.
    """
    try:
        with open_table() as table:
            header, _ = _parse_table(table, name, errors="replace")
            return {key: header[position] for key, position in _find_columns(header).items()}
    except (ValueError, OSError, csv.Error):
        return {}


def has_column(open_table: OpenTable, name: str, column: str) -> bool:
    """Whether a table has a column of this name; not if it cannot be read.

    Args:
        open_table: opens it.
        name: its file name; the suffix says the format.
        column: the name, as it is written there.
    """
    try:
        with open_table() as table:
            return column in _parse_table(table, name, errors="replace", group_column=column)[0]
    except (ValueError, OSError, csv.Error):
        return False


def _to_row(line: int, cells: Sequence[str], columns: dict[str, int], width: int) -> ListedImage:
    values = {key: cells[at] if at < len(cells) else "" for key, at in columns.items()}
    label, split, group = (values.get(key, "").strip() for key in ("label", "split", "group"))
    problem = ""
    if any(cells[width:]):
        problem = f"line {line} has {len(cells)} cells, the header has {width}; put cells that hold a delimiter in quotes"
    return ListedImage(values["path"], line, "" if label.lower() in MISSING else label, split, group, problem)


def _describe_columns(header: Sequence[str], lines: Lines, columns: dict[str, int]) -> str:
    """What columns a table has, and what they look like."""
    found = f"the columns are {', '.join(header) or '(none)'}"
    if any(has_image_suffix(name) for name in header):
        return f"{found}; the first line must name the columns"
    if "path" in columns and len(header) > 2:
        rows = [cells for _, cells in lines]
        others = [at for at in range(len(header)) if at not in columns.values()]
        if rows and all(at < len(cells) and cells[at].strip() in ("0", "1", "0.0", "1.0") for cells in rows for at in others):
            return f"{found}; they look like one column per class (one-hot), where one column label with the class is needed"
    if "path" in columns:
        return f"{found}; none of them is the label: rename the one with the class to label"
    return found


def _parse_table(table: BinaryIO, name: str, errors: str = "strict", group_column: str = "") -> tuple[list[str], Lines]:
    """Header and lines of a table, all as text."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".parquet":
        return _parse_parquet(table, group_column)
    data = table.read()
    text = data.decode("utf-16" if data.startswith(UTF16_MARKS) else "utf-8-sig", errors)
    if "\0" in text[:1000]:
        raise ValueError("it has zero bytes: UTF-16 without a byte-order mark, or no text at all")
    if suffix == ".txt":
        return ["path"], ((line, [path.rstrip("\r")]) for line, path in enumerate(text.split("\n"), start=1))
    if suffix in (".jsonl", ".json"):
        objects = _parse_json(text) if suffix == ".json" else _parse_json_lines(text)
        header = list(dict.fromkeys(name for _, row in objects for name in row))
        return header, ((line, [_to_text(row.get(name)) for name in header]) for line, row in objects)
    declared = re.match(r'"?sep=(.)"?\r?\n', text)  # as spreadsheets write it
    content = (text[declared.end() :] if declared else text).lstrip("\r\n")
    first_line = text[: len(text) - len(content)].count("\n") + 1
    delimiter = declared[1] if declared else "\t" if suffix == ".tsv" else max(",;\t|", key=content.partition("\n")[0].count)
    rows = csv.reader(StringIO(content, newline=""), delimiter=delimiter, skipinitialspace=delimiter != "\t")
    return [cell.strip() for cell in next(rows, [])], enumerate(rows, start=first_line + 1)


def _parse_json_lines(text: str) -> list[tuple[int, dict[str, Any]]]:
    objects = []
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            try:
                row = json.loads(content)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {line} is not valid JSON: {error.msg}") from error
            if not isinstance(row, dict):
                raise ValueError(f'line {line} is not an object such as {{"path": "photos/1.jpg"}}')
            objects.append((line, row))
    return objects


def _parse_json(text: str) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSON list, such as Label Studio's export JSON-MIN, counted from 1."""
    rows = json.loads(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError('it is not a list of objects such as [{"path": "photos/1.jpg", "label": "ants"}]')
    if any("annotations" in row and "data" in row for row in rows[:1]):
        raise ValueError("it has nested annotations; export it as CSV or JSON-MIN")
    return list(enumerate(rows, start=1))


def _parse_parquet(table: BinaryIO, group_column: str) -> tuple[list[str], Lines]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(table)
    header = [str(name) for name in file.schema_arrow.names]
    wanted = [name for name in header if name.lower() in COLUMN_NAMES or name == group_column]
    batches = file.iter_batches(columns=wanted) if wanted else ()
    columns = ([map(_to_text, column.to_pylist()) for column in batch.select(wanted).columns] for batch in batches)
    return wanted or header, enumerate((cells for batch in columns for cells in zip(*batch, strict=True)), start=2)


def _to_text(value: object) -> str:
    """A value as text; a list of one is its item, and an object, which says no label, is nothing."""
    if isinstance(value, list) and len(value) == 1:
        return _to_text(value[0])
    return "" if value is None or isinstance(value, dict) else str(value)


def _find_columns(header: Sequence[str]) -> dict[str, int]:
    """Position of each of our columns that the header has, by the first of its names.

    Raises:
        ValueError: two columns have one name.
    """
    names = [name.strip().lower() for name in header]
    positions = {name: position for position, name in enumerate(names)}
    columns = {key: positions[name] for key, aliases in COLUMNS.items() for name in reversed(aliases) if name in positions}
    for position in columns.values():
        if names.count(names[position]) > 1:
            raise ValueError(f"several columns are called {names[position]}")
    return columns
