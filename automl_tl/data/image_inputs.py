"""Unlabeled images to predict: files, folders, patterns, lists, archives, standard input.

Every file becomes a row; one that is not an image or can't be read becomes an error row.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from tarfile import is_tarfile
from typing import BinaryIO, Final, NamedTuple
from zipfile import is_zipfile

from automl_tl.data.image_formats import IMAGE_SUFFIXES
from automl_tl.data.remote import RemoteFiles, file_name_of, is_url
from automl_tl.data.sources.archives import is_archive, open_archive
from automl_tl.data.sources.files import FileFinder, disk_finder, remote_finder
from automl_tl.data.sources.layout import split_of
from automl_tl.data.sources.lists import LIST_SUFFIXES, OpenTable, read_list
from automl_tl.data.sources.source import in_unicode
from automl_tl.errors import SourceNotFoundError
from automl_tl.runtime.progress import QUIET, Progress

EXPECTED: Final = (
    "an image, a folder, a pattern such as 'photos/*.jpg', a list (csv, tsv, jsonl, txt, parquet), "
    "a zip or tar archive, a URL, or - for stdin"
)


class NamedImage(NamedTuple):
    """An image by a name to show; ``read`` returns the bytes of its file, or an ``OSError`` says why it cannot."""

    name: str
    read: Callable[[], bytes]


class ImageInputs:
    """Image names in order, and the bytes of each; ``read`` may be called from many threads."""

    def __init__(self) -> None:
        self._readers: dict[str, Callable[[], bytes]] = {}
        self.remote, self.remote_names = RemoteFiles(), list[str]()

    def __len__(self) -> int:
        return len(self._readers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def images(self) -> Iterator[NamedImage]:
        """Yield the images, each with its name."""
        return (NamedImage(name, read) for name, read in self._readers.items())

    def read(self, name: str) -> bytes:
        """Return the bytes of the image ``name``; an ``OSError`` gives the reason if they can't be read."""
        return self._readers[name]()

    def add(self, name: str, read: Callable[[], bytes]) -> None:
        """Add an image unless its name is there already.

        Args:
            name: to show; bytes that are not UTF-8 are escaped.
            read: returns its bytes.
        """
        self._readers.setdefault(in_unicode(name), read)

    def add_remote(self, name: str) -> None:
        """Add an image by its name in ``remote``, from where ``find_images`` brings it."""
        self.add(name, partial(self.remote.read, name))
        self.remote_names.append(name)

    def add_file(self, path: Path) -> None:
        """Add a file by its path."""
        self.add(str(path), partial(_read_file, path))


def find_images(inputs: Iterable[str], *, stdin: BinaryIO | None = None, progress: Progress = QUIET) -> ImageInputs:
    """Find the images that ``inputs`` name, each once. Folders are searched recursively, hidden files included.

    Args:
        inputs: paths, patterns, URLs, or ``-``. What is behind URLs is brought into the cache.
        stdin: paths by line, for ``-``; by default standard input.
        progress: receives the progress of downloads, and their failures.

    Raises:
        SourceNotFoundError: an input doesn't exist.
        RemoteError: a store cannot be reached, or refuses access.
        BrokenSourceError: a list or an archive can't be read, or a list has no column of paths.
    """
    images = ImageInputs()
    for name in inputs:
        if name == "-":
            lines = (stdin or sys.stdin.buffer).read()
            _add_list(images, partial(BytesIO, lines), "-.txt", source="standard input", folder=Path())
        elif is_url(name):
            _add_url(images, name, progress)
        elif os.path.lexists(name):
            _add_path(images, Path(name))
        else:
            matches = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else []  # noqa: PTH207 - may be absolute
            if not matches:
                raise SourceNotFoundError(name, EXPECTED)
            for match in matches:
                _add_path(images, Path(match))
    images.remote.fetch(images.remote_names, progress)
    return images


def _add_url(images: ImageInputs, url: str, progress: Progress) -> None:
    """Add an image, the images of an archive or list, or all objects below a URL."""
    files, suffix = images.remote, PurePosixPath(file_name_of(url)).suffix.lower()
    name = files.add(url)
    if suffix in IMAGE_SUFFIXES:
        images.add_remote(name)
    elif suffix in LIST_SUFFIXES:
        file = files.local(name)
        finder = remote_finder(url, files)
        _add_list(images, lambda: file.open("rb"), file.name, source=name, folder=Path(), finder=finder)
    elif is_archive(Path(file_name_of(url))) or url.startswith(("http://", "https://")):
        _add_remote_file(images, name)
    elif objects := files.list(url, progress):
        for item in objects:
            images.add_remote(item.url)
    else:
        raise SourceNotFoundError(name, EXPECTED)


def _add_remote_file(images: ImageInputs, name: str) -> None:
    """Add the images of an archive, or an image without a suffix."""
    file = images.remote.local(name)
    if is_archive(file) or is_zipfile(file) or is_tarfile(file):
        archive = open_archive(file)
        for member in archive.members:
            images.add(f"{name}/{member}", partial(archive.read, member))
    else:
        images.add(name, file.read_bytes)


def _add_path(images: ImageInputs, path: Path) -> None:
    if path.is_dir():
        for parent, folders, files in os.walk(path, followlinks=False):
            folders.sort()
            for name in sorted(files):
                images.add_file(Path(parent) / name)
    elif path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        _add_list(images, lambda: path.open("rb"), path.name, source=path, folder=path.parent)
    elif path.is_file() and is_archive(path):
        archive = open_archive(path)
        for member in archive.members:
            images.add(f"{path}/{member}", partial(archive.read, member))
    else:
        images.add_file(path)


def _add_list(
    images: ImageInputs, open_table: OpenTable, name: str, *, source: Path | str, folder: Path, finder: FileFinder | None = None
) -> None:
    """Add the images of a list: files below ``folder``, or what ``finder`` finds."""
    split = split_of(Path(name).stem)
    finder = finder or disk_finder(folder, by_name=not name.endswith(".txt"), remote=images.remote)
    for image in read_list(open_table, name, source):
        if not image.path.strip() or image.problem:
            images.add(f"{source} (line {image.line})", partial(reject, image.problem or "the line names no file"))
            continue
        found = finder.find(image.path, split=split)
        if is_url(found.path):
            images.add_remote(found.path)
        elif found.rejected:
            images.add(str(folder / found.path), partial(reject, found.detail))
        else:
            images.add_file(folder / found.path)


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise OSError("broken symbolic link" if path.is_symlink() else "not a file" if path.exists() else "file not found")
    return path.read_bytes()


def reject(problem: str) -> bytes:
    """Raise the ``OSError`` of an image that cannot be read."""
    raise OSError(problem)
