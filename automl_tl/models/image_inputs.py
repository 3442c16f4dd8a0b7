"""Unlabeled images to predict: files, folders, patterns, lists, archives, standard input.

Every file becomes a row; one that is not an image or can't be read becomes an error row.
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
from functools import partial
from pathlib import Path
from typing import IO, Final

from automl_tl.errors import BrokenSourceError, DataError, SourceNotFoundError

__all__ = ["ImageInputs", "find_images"]

PATH_COLUMNS: Final = ("path", "file", "filename", "file_name", "image", "image_path")
LISTS: Final = (".csv", ".tsv", ".jsonl", ".txt", ".parquet")
MAX_MEMBER_BYTES: Final = 512 * 2**20  # of one file in an archive; a larger one is not a photograph
EXPECTED: Final = (
    "an image, a folder, a pattern such as 'photos/*.jpg', a list (csv, tsv, jsonl, txt, parquet), a zip, or - for stdin"
)


class ImageInputs:
    """Image names in order, and the bytes of each; ``read`` may be called from many threads."""

    def __init__(self) -> None:
        self._readers: dict[str, Callable[[], bytes]] = {}

    def __len__(self) -> int:
        return len(self._readers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def read(self, name: str) -> bytes:
        """Return the bytes of the image ``name``; an ``OSError`` gives the reason if they can't be read."""
        return self._readers[name]()

    def add(self, name: str, read: Callable[[], bytes]) -> None:
        """Add an image unless its name is there already.

        Args:
            name: to show; undecodable bytes become U+FFFD.
            read: returns its bytes.
        """
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        self._readers.setdefault(shown, read)

    def add_file(self, path: Path) -> None:
        """Add a file by its path."""
        self.add(str(path), lambda: _read_file(path))


def find_images(inputs: Iterable[str], *, stdin: IO[str] | None = None) -> ImageInputs:
    """Find the images that ``inputs`` name, each once. Folders are searched recursively, hidden files included.

    Args:
        inputs: paths, patterns, or ``-``.
        stdin: paths by line, for ``-``; by default standard input.

    Raises:
        SourceNotFoundError: an input doesn't exist.
        BrokenSourceError: a list or an archive can't be read.
        DataError: a list has no column of paths.
    """
    images = ImageInputs()
    for name in inputs:
        _add(images, name, stdin or sys.stdin)
    return images


def _add(images: ImageInputs, name: str, stdin: IO[str]) -> None:
    path = Path(name)
    if name == "-":
        with _reading("standard input"):
            for line in stdin:
                if listed := line.strip("\r\n"):
                    images.add_file(Path(listed))
    elif os.path.lexists(path):
        _add_existing(images, path)
    else:
        matches = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else []  # noqa: PTH207 - may be absolute
        if not matches:
            raise SourceNotFoundError(name, EXPECTED)
        for match in matches:
            _add_existing(images, Path(match))


def _add_existing(images: ImageInputs, path: Path) -> None:
    if path.is_dir():
        _add_folder(images, path)
    elif path.is_file() and path.suffix.lower() in LISTS:
        for listed in _listed_paths(path):
            images.add_file(path.parent / listed)
    elif path.is_file() and zipfile.is_zipfile(path):
        _add_archive(images, path)
    else:
        images.add_file(path)


def _add_folder(images: ImageInputs, folder: Path) -> None:
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(files):
            images.add_file(Path(parent) / name)


def _add_archive(images: ImageInputs, path: Path) -> None:
    with _reading(path):
        archive = zipfile.ZipFile(path)
    for member in archive.infolist():
        if not member.is_dir():
            images.add(f"{path}/{member.filename}", partial(_read_member, archive, member))


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise OSError("broken symbolic link" if path.is_symlink() else "not a file" if path.exists() else "file not found")
    return path.read_bytes()


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > MAX_MEMBER_BYTES:
        raise OSError(f"unpacked size {member.file_size / 2**20:.0f} MiB is over {MAX_MEMBER_BYTES // 2**20} MiB")
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # damaged, encrypted, unknown compression
        raise OSError(str(error)) from error


def _listed_paths(path: Path) -> Iterator[str]:
    """Paths in a list: its column of paths, or its lines."""
    if path.suffix.lower() == ".parquet":
        with _reading(path):
            yield from _parquet_paths(path)
        return
    with _reading(path), path.open(encoding="utf-8-sig", newline="") as lines:
        if path.suffix.lower() == ".txt":
            yield from (line.rstrip("\r\n") for line in lines if line.strip())
        elif path.suffix.lower() == ".jsonl":
            numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
            yield from (_path_in(_parse_line(line, number, path), path) for number, line in numbered)
        else:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            yield from (_path_in(row, path) for row in csv.DictReader(lines, delimiter=delimiter))


@contextmanager
def _reading(source: Path | str) -> Iterator[None]:
    """Turn any failure to read a list or an archive into an error that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        problem = f"the text is not UTF-8 (found the byte 0x{error.object[error.start]:02x})"
        raise BrokenSourceError(source, problem, "text saved as UTF-8") from error
    except (OSError, ValueError, csv.Error, zipfile.BadZipFile) as error:
        raise BrokenSourceError(source, f"it can't be read ({error})", EXPECTED) from error


def _parse_line(line: str, number: int, path: Path) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        expected = 'one object per line, such as {"path": "photos/1.jpg"}'
        raise BrokenSourceError(path, f"line {number} is not valid JSON ({error.msg})", expected) from error


def _path_in(row: object, path: Path) -> str:
    columns = {str(name).lower(): value for name, value in row.items()} if isinstance(row, dict) else {}
    value = next((columns[name] for name in PATH_COLUMNS if columns.get(name)), None)
    if value is None:
        raise DataError(f"{path} has no column of paths (found {list(columns)}). Expected one named {', '.join(PATH_COLUMNS)}.")
    return str(value)


def _parquet_paths(path: Path) -> Iterator[str]:
    from pyarrow import parquet

    table = parquet.ParquetFile(path)
    name = next((name for name in table.schema_arrow.names if name.lower() in PATH_COLUMNS), None)
    if name is None:
        raise DataError(f"{path} has no column of paths (found {table.schema_arrow.names}).")
    for batch in table.iter_batches(columns=[name]):
        yield from (str(value) for value in batch.column(0).to_pylist() if value)
