"""Pictures without labels, from wherever people have them: files, folders, patterns, lists, archives, standard input.

Every file becomes a row: one that is no image, or can't be read, becomes a row with its error.
"""

from __future__ import annotations

import csv
import glob
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from automl_tl.errors import BrokenSourceError, DataError, SourceNotFoundError

__all__ = ["Pictures", "find_pictures"]

PATH_COLUMNS: Final = ("path", "file", "filename", "file_name", "image", "image_path")
LISTS: Final = (".csv", ".tsv", ".jsonl", ".txt", ".parquet")
MAX_MEMBER_BYTES: Final = 512 * 2**20  # of one file in an archive: what claims more is no photograph
EXPECTED: Final = (
    "an image, a folder, a pattern such as 'photos/*.jpg', a list (csv, tsv, jsonl, txt, parquet), a zip, or - for stdin"
)


class Pictures:
    """Names in order, and the bytes behind each; ``read`` may be called from many threads."""

    def __init__(self) -> None:
        self._readers: dict[str, Callable[[], bytes]] = {}

    def __len__(self) -> int:
        return len(self._readers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def read(self, name: str) -> bytes:
        """The bytes of the picture ``name``; an ``OSError`` says why they can't be had."""
        return self._readers[name]()

    def add(self, name: str, read: Callable[[], bytes]) -> None:
        """One more, unless it is there already. Undecodable bytes in a name are shown as U+FFFD."""
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        self._readers.setdefault(shown, read)

    def add_file(self, path: Path) -> None:
        """One more file."""
        self.add(str(path), lambda: _read_file(path))


def find_pictures(inputs: Iterable[str], *, stdin: IO[str] | None = None) -> Pictures:
    """Every picture that ``inputs`` mean, in their order, each once; folders are searched, hidden files included.

    Raises:
        SourceNotFoundError: an input is nothing that exists.
        BrokenSourceError: a list or an archive can't be read.
        DataError: a list has no column with paths.
    """
    found = Pictures()
    for given in inputs:
        _add(found, given, stdin or sys.stdin)
    return found


def _add(found: Pictures, given: str, stdin: IO[str]) -> None:
    path = Path(given)
    if given == "-":
        with _reading("standard input"):
            for line in stdin:
                if name := line.strip("\r\n"):
                    found.add_file(Path(name))
    elif os.path.lexists(path):
        _add_existing(found, path)
    else:
        matches = sorted(glob.glob(given, recursive=True)) if glob.has_magic(given) else []  # noqa: PTH207 - may be absolute
        if not matches:
            raise SourceNotFoundError(given, EXPECTED)
        for match in matches:
            _add_existing(found, Path(match))


def _add_existing(found: Pictures, path: Path) -> None:
    if path.is_dir():
        _add_folder(found, path)
    elif path.is_file() and path.suffix.lower() in LISTS:
        for listed in _listed(path):
            found.add_file(path.parent / listed)
    elif path.is_file() and zipfile.is_zipfile(path):
        _add_archive(found, path)
    else:
        found.add_file(path)


def _add_folder(found: Pictures, folder: Path) -> None:
    for where, folders, files in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(files):
            found.add_file(Path(where) / name)


def _add_archive(found: Pictures, path: Path) -> None:
    with _reading(path):
        archive = zipfile.ZipFile(path)
    for member in archive.infolist():
        if not member.is_dir():
            found.add(f"{path}/{member.filename}", lambda member=member: _read_member(archive, member))  # type: ignore[misc] # mypy


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise OSError("a link to nothing" if path.is_symlink() else "not a file" if path.exists() else "there is no such file")
    return path.read_bytes()


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > MAX_MEMBER_BYTES:
        raise OSError(f"it would be {member.file_size / 2**20:.0f} MiB")
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # damaged, encrypted, an unknown compression
        raise OSError(str(error)) from error


def _listed(path: Path) -> Iterator[str]:
    """Paths in a list: its column of paths, or its lines."""
    if path.suffix.lower() == ".parquet":
        with _reading(path):
            yield from _column_of_parquet(path)
        return
    with _reading(path), path.open(encoding="utf-8-sig", newline="") as lines:
        if path.suffix.lower() == ".txt":
            yield from (line.rstrip("\r\n") for line in lines if line.strip())
        elif path.suffix.lower() == ".jsonl":
            numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
            yield from (_named(_object(line, number, path), path) for number, line in numbered)
        else:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            yield from (_named(row, path) for row in csv.DictReader(lines, delimiter=delimiter))


@contextmanager
def _reading(what: Path | str) -> Iterator[None]:
    """Turn whatever goes wrong with a list or an archive into an error that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        problem = f"the text is not UTF-8 (found the byte 0x{error.object[error.start]:02x})"
        raise BrokenSourceError(what, problem, "text saved as UTF-8") from error
    except (OSError, ValueError, csv.Error, zipfile.BadZipFile) as error:
        raise BrokenSourceError(what, f"it can't be read ({error})", EXPECTED) from error


def _object(line: str, number: int, path: Path) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        expected = 'one object per line, such as {"path": "photos/1.jpg"}'
        raise BrokenSourceError(path, f"line {number} is no JSON ({error.msg})", expected) from error


def _named(row: object, path: Path) -> str:
    columns = {str(name).lower(): value for name, value in row.items()} if isinstance(row, dict) else {}
    value = next((columns[name] for name in PATH_COLUMNS if columns.get(name)), None)
    if value is None:
        raise DataError(
            f"{path} has no column with paths (found {list(columns)}). Expected one named {', '.join(PATH_COLUMNS)}."
        )
    return str(value)


def _column_of_parquet(path: Path) -> Iterator[str]:
    from pyarrow import parquet

    table = parquet.ParquetFile(path)
    name = next((name for name in table.schema_arrow.names if name.lower() in PATH_COLUMNS), None)
    if name is None:
        raise DataError(f"{path} has no column with paths (found {table.schema_arrow.names}).")
    for batch in table.iter_batches(columns=[name]):
        yield from (str(value) for value in batch.column(0).to_pylist() if value)
