"""Archives of data sets that aren't single images: CIFAR, MNIST, Parquet, Arrow, WebDataset shards.

Such files are tables that must be read out of order, so they are unpacked into a temporary folder, which goes with the
process. Only members whose names stay inside and whose sizes are within bounds are written; the others get a row.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import Final, final
from weakref import finalize

from automl_tl.data.sniffing import IMAGE_SUFFIXES
from automl_tl.data.sources.archives import TABLE_SUFFIXES, ArchiveFiles
from automl_tl.data.sources.layout import MAX_WRAPPERS, aside
from automl_tl.data.sources.source import Entry, Source

__all__ = ["PackedSource", "open_packed"]

TABLES: Final = re.compile(
    r"batches\.meta|meta|(train|t10k)-(images-idx3|labels-idx1)-ubyte(\.gz)?|.*("
    + "|".join(map(re.escape, TABLE_SUFFIXES))
    + ")"
)
OpenFolder = Callable[[Path], Source | None]


def open_packed(file: Path, files: ArchiveFiles, open_folder: OpenFolder) -> Source | None:
    """The source inside the archive at ``file`` if it holds tables and no single images, else ``None``.

    Args:
        file: where the archive is.
        files: what it holds.
        open_folder: recognizes a folder of tables.
    """

    def names() -> Iterator[PurePosixPath]:
        return (PurePosixPath(member.path) for member in files.members() if not _left_aside(member.path))

    if any(name.suffix.lower() in IMAGE_SUFFIXES for name in names()) or not any(
        TABLES.fullmatch(name.name) for name in names()
    ):
        return None
    source = PackedSource(file, files, open_folder)
    return source if source.is_known else None


@final
class PackedSource(Source):
    """A source of tables in an archive, unpacked."""

    def __init__(self, root: Path, files: ArchiveFiles, open_folder: OpenFolder) -> None:
        self.root = root
        folder = Path(mkdtemp(prefix="automl_tl_unpacked_"))
        finalize(self, _remove, folder, os.getpid())
        self._outside = tuple(_unpacked(folder, files))
        self._inside = _opened(folder, open_folder, MAX_WRAPPERS)
        self.kind = f"archive_of_{self._inside.kind}" if self._inside else "archive"

    @property
    def is_known(self) -> bool:
        """Whether the unpacked files are a source."""
        return self._inside is not None

    def entries(self) -> Iterator[Entry]:
        """Every image of the tables, and every member that was not unpacked."""
        yield from self._outside
        if self._inside:
            yield from self._inside.entries()

    def read(self, path: str) -> bytes:
        """The bytes of the image."""
        if self._inside is None:
            raise OSError("the archive holds no images")
        return self._inside.read(path)

    def class_names(self) -> tuple[str, ...]:
        """Names of all classes, if the tables tell them."""
        return self._inside.class_names() if self._inside else ()


def _unpacked(folder: Path, files: ArchiveFiles) -> Iterator[Entry]:
    """Writes sound members to ``folder``; gives an entry for each of the others."""
    for number, member in enumerate(files.members()):
        ignored = _left_aside(member.path)
        if member.problem:
            yield Entry(f"{member.path} (member {number})", rejected=member.problem[0], detail=member.problem[1])
        elif ignored:
            yield Entry(member.path, ignored=ignored)
        else:
            file = folder / member.path
            try:
                data = files.read(member.path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            except OSError as error:
                yield Entry(member.path, rejected="unreadable", detail=str(error))


def _opened(folder: Path, open_folder: OpenFolder, wrappers: int) -> Source | None:
    source = open_folder(folder)
    inside = [item for item in folder.iterdir() if item.is_dir()]
    if source is None and len(inside) == 1 and wrappers:
        return _opened(inside[0], open_folder, wrappers - 1)
    return source


def _left_aside(path: str) -> str | None:
    return next(filter(None, map(aside, PurePosixPath(path).parts)), None)


def _remove(folder: Path, maker: int) -> None:
    if os.getpid() == maker:  # not in a fork
        shutil.rmtree(folder, ignore_errors=True)
