"""Files inside a zip or tar, read in place: nothing is unpacked, so no path can lead astray.

A compressed tar can't be read out of order; its images are copied once into a temporary file. Declared sizes are checked
before anything is inflated, and no more than the declared size is ever read.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, final

from automl_tl.data.sources.source import in_unicode
from automl_tl.data.sources.spool import Spool
from automl_tl.errors import BrokenSourceError

__all__ = ["ARCHIVE_SUFFIXES", "TABLE_SUFFIXES", "ArchiveFiles", "Member", "TarFiles", "ZipFiles", "open_files"]

ARCHIVE_SUFFIXES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_MEMBER_BYTES: Final = 256 * 2**20  # no single image that we decode is larger
TABLE_SUFFIXES: Final = (".parquet", ".arrow", ".tar", ".tar.gz", ".tgz")
MAX_TABLE_BYTES: Final = 2**30  # the datasets library writes shards of half that
MAX_INFLATION: Final = 100  # deflate reaches 1030; images, compressed already, 1 to 3, and blank ones 100
SMALL_BYTES: Final = 16 * 2**20  # a blank image may shrink a thousandfold and harms nobody
MIN_ALLOWANCE_BYTES: Final = 2**30
EXPECTED: Final = "a whole zip or tar archive of images"


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive; ``problem`` says in a stable word, with a detail, why it is not read."""

    path: str
    num_bytes: int
    problem: tuple[str, str] | None = None


class ArchiveFiles(ABC):
    """The files of an archive; ``read`` may be called from many threads and after pickling."""

    file: Path

    @abstractmethod
    def members(self) -> Iterator[Member]:
        """Every file, link or device once, folders not."""

    @abstractmethod
    def read(self, path: str, most: int | None = None) -> bytes:
        """The bytes of a member without a problem, or the first ``most`` of them.

        Raises:
            OSError: they can't be had, whatever the reason.
        """


def open_files(file: Path) -> ArchiveFiles:
    """The archive at ``file``.

    Raises:
        BrokenSourceError: it is none, or its directory is damaged.
    """
    try:
        return ZipFiles(file) if zipfile.is_zipfile(file) else TarFiles(file)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise BrokenSourceError(file, f"the archive can't be read ({error})", EXPECTED) from error


@final
class ZipFiles(ArchiveFiles):
    """A zip archive."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._archive: zipfile.ZipFile | None = zipfile.ZipFile(file)

    def members(self) -> Iterator[Member]:
        """Every file; a name that occurs twice has a problem the second time."""
        seen: set[str] = set()
        for info in self._opened().infolist():
            if not info.is_dir():
                yield Member(info.filename, info.file_size, self._problem(info, seen))
                seen.add(info.filename)

    def read(self, path: str, most: int | None = None) -> bytes:
        """The bytes of a member."""
        archive = self._opened()
        try:
            with archive.open(path) as member:
                return member.read(archive.getinfo(path).file_size if most is None else most)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError) as error:
            raise OSError(f"damaged in the archive: {error}") from error

    def _opened(self) -> zipfile.ZipFile:
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.file)
        return self._archive

    def _problem(self, info: zipfile.ZipInfo, seen: set[str]) -> tuple[str, str] | None:
        if info.filename in seen:
            return "repeated_name", "the archive holds another file of this name"
        if info.flag_bits & 1:
            return "encrypted", "it is protected by a password"
        if info.external_attr >> 28 == 0o12:
            return "link_in_archive", "a link inside an archive; not followed"
        return _problem(info.filename, info.file_size, info.compress_size)

    def __getstate__(self) -> dict[str, object]:
        """Without the open file."""
        return {**self.__dict__, "_archive": None}


@final
class TarFiles(ArchiveFiles):
    """A tar archive, compressed or not."""

    def __init__(self, file: Path) -> None:
        self.file = file
        plain = _is_plain(file)
        self._places: dict[str, tuple[int, int]] = {}  # path -> offset, size in bytes; of a plain tar
        self._spool = None if plain else Spool()
        with tarfile.open(file, "r:" if plain else "r|*") as archive:
            self._members = tuple(self._found(archive))

    def members(self) -> Iterator[Member]:
        """Every file; a name that occurs twice has a problem the second time."""
        return iter(self._members)

    def read(self, path: str, most: int | None = None) -> bytes:
        """The bytes of a member."""
        if self._spool:
            return self._spool.read(path)[:most]
        offset, size = self._places[path]
        with self.file.open("rb") as file:
            file.seek(offset)
            return file.read(size if most is None else min(most, size))

    def _found(self, archive: tarfile.TarFile) -> Iterator[Member]:
        left = max(MIN_ALLOWANCE_BYTES, MAX_INFLATION * self.file.stat().st_size)
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would hold all that is known of every file
            left -= info.size
            if left < 0 and self._spool:
                raise BrokenSourceError(self.file, "it unpacks to more than a hundred times its size", EXPECTED)
            if not info.isdir():
                problem = self._problem(info)
                if not problem:
                    self._keep(archive, info)
                yield Member(in_unicode(info.name), info.size, problem)

    def _keep(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        if not self._spool:
            self._places[info.name] = info.offset_data, info.size
        elif opened := archive.extractfile(info):
            self._spool.put(info.name, opened.read(info.size))

    def _problem(self, info: tarfile.TarInfo) -> tuple[str, str] | None:
        if not info.name.isascii() and in_unicode(info.name) != info.name:
            return "name_not_unicode", "its name is no valid UTF-8; rename it"
        if info.name in (self._spool or self._places):
            return "repeated_name", "the archive holds another file of this name"
        if not info.isreg() or info.issparse():
            return "link_in_archive", "a link, device or sparse file inside an archive; not followed"
        return _problem(info.name, info.size, info.size)

    def __getstate__(self) -> dict[str, object]:
        """The state without the list of members, which reading does not need."""
        return {**self.__dict__, "_members": ()}


def _is_plain(file: Path) -> bool:
    try:
        with tarfile.open(file, "r:"):
            return True
    except tarfile.TarError:
        return False


def _problem(path: str, num_bytes: int, num_packed: int) -> tuple[str, str] | None:
    parts = PurePosixPath(path.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or (len(path) > 1 and path[1] == ":"):
        return "unsafe_path", "its name leads out of the archive"
    if num_bytes > (MAX_TABLE_BYTES if path.lower().endswith(TABLE_SUFFIXES) else MAX_MEMBER_BYTES):
        return "too_large", f"it would unpack to {num_bytes / 2**20:,.0f} MiB"
    if num_bytes > SMALL_BYTES and num_bytes > MAX_INFLATION * num_packed:
        return "too_large", f"it would unpack to {num_bytes / 2**20:,.0f} MiB from {num_packed / 2**10:,.0f} KiB"
    return None
