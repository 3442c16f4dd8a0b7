"""Zip and tar archives, read in place: no member is unpacked, so no path can lead out.

Declared sizes are checked before anything is inflated, and no more than the declared size is ever read. Members are read by
their entry, never by name, because several may have one name. Backslashes separate folders, as Windows writes them.

Only a compressed tar is decompressed, and data sets of tables are unpacked, to temporary folders.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from errno import ENOENT
from pathlib import Path, PurePosixPath
from typing import Any, Final, final

from automl_tl.data.image_formats import HEAD_BYTES, has_image_suffix
from automl_tl.data.sources.layout import MAX_WRAPPERS, Layout, Listing, ignore_reason
from automl_tl.data.sources.source import Entry, Source, in_unicode, temporary_folder
from automl_tl.errors import BrokenSourceError

ARCHIVE_SUFFIXES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_MEMBER_BYTES: Final = 256 * 2**20  # no image that is decoded is larger
TABLE_SUFFIXES: Final = (".parquet", ".arrow", ".tar", ".tar.gz", ".tgz")
MAX_TABLE_BYTES: Final = 2**30  # the datasets library writes shards of half that
MAX_INFLATION: Final = 100  # deflate reaches 1030; images, compressed already, 1 to 3, and blank ones 100
SMALL_BYTES: Final = 16 * 2**20  # a blank image may shrink a thousandfold and is harmless
MIN_ALLOWANCE_BYTES: Final = 2**30
COPY_BYTES: Final = 2**20
STEP_BYTES: Final = 2**12
NAME_LENGTH_OFFSET: Final = 26  # in the header of a zip member
EXPECTED: Final = "a whole zip or tar archive of images"
DATASET_FILES: Final = re.compile(
    r"batches\.meta|meta|(train|t10k)-(images-idx3|labels-idx1)-ubyte(\.gz)?|.*\.(parquet|arrow|tar|tar\.gz|tgz)"
)
DAMAGE: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, RuntimeError),  # the last also for encrypted members and unknown compression
)
DECOMPRESSORS: Final[dict[bytes, Callable[[Path], Any]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
Problem = tuple[str, str]  # code, detail


class Archive(ABC):
    """Files of an archive by unique path; links, devices and other members that are not read are rejected.

    ``read`` may be called from many threads and after pickling.
    """

    file: Path
    members: dict[str, Entry]

    def paths(self) -> Iterator[str]:
        """Paths of the members that can be read."""
        return (path for path, member in self.members.items() if not member.rejected)

    def read(self, path: str, max_bytes: int | None = None) -> bytes:
        """Read a member.

        Args:
            path: of the member.
            max_bytes: read no more than the first bytes; absent: all.

        Returns:
            Its bytes.

        Raises:
            OSError: it is missing, rejected or damaged.
        """
        member = self.members.get(path)
        if member is None:
            raise FileNotFoundError(ENOENT, "the archive has no such file", path)
        if member.rejected:
            raise OSError(member.detail)
        return self._read(path, max_bytes)

    @abstractmethod
    def _read(self, path: str, max_bytes: int | None) -> bytes:
        """The bytes of a readable member."""


def is_archive(file: Path) -> bool:
    """Whether a file is an archive by its name."""
    return file.name.lower().endswith(ARCHIVE_SUFFIXES)


def open_archive(file: Path) -> Archive:
    """The archive at ``file``; a ``BrokenSourceError`` if it is not one, or its directory is damaged."""
    try:
        return ZipArchive(file) if zipfile.is_zipfile(file) else TarArchive(file)
    except DAMAGE as error:
        raise BrokenSourceError(file, f"the archive can't be read ({error})", EXPECTED) from error


@final
class ZipArchive(Archive):
    """A zip archive."""

    def __init__(self, file: Path) -> None:
        self.file, self._archive = file, zipfile.ZipFile(file)
        infos = [info for info in self._archive.infolist() if not info.filename.endswith(("/", "\\"))]
        self._infos = {clean_name(info.filename): info for info in reversed(infos)}  # the first; ZipFile would read the last
        self.members = list_members((clean_name(info.filename), self._find_problem(info)) for info in infos)

    def _read(self, path: str, max_bytes: int | None) -> bytes:
        info = self._infos[path]
        wanted = info.file_size if max_bytes is None else min(max_bytes, info.file_size)
        try:
            if info.compress_type == zipfile.ZIP_BZIP2:
                return self._read_bzip2(info, wanted)
            with self._archive.open(info) as member:
                # LZMA inflates all that it is given, so in steps; at most 30 MiB each.
                step = STEP_BYTES if info.compress_type == zipfile.ZIP_LZMA else max(1, wanted)
                return b"".join(member.read(min(step, wanted - at)) for at in range(0, wanted, step))
        except DAMAGE as error:
            raise OSError(f"damaged in the archive: {error}") from error

    def _read_bzip2(self, info: zipfile.ZipInfo, num_bytes: int) -> bytes:
        """As ``ZipFile`` reads, which would inflate 4 KiB to 5 GiB at once."""
        with self.file.open("rb") as file:
            file.seek(info.header_offset + NAME_LENGTH_OFFSET)
            file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)  # name and extra field
            data = bz2.BZ2Decompressor().decompress(file.read(info.compress_size), num_bytes)
        if num_bytes == info.file_size and zlib.crc32(data) != info.CRC:
            raise zipfile.BadZipFile("wrong checksum")
        return data

    def _find_problem(self, info: zipfile.ZipInfo) -> Problem | None:
        if info.flag_bits & 1:
            return "encrypted", "it is protected by a password"
        if info.external_attr >> 28 == 0o12:
            return "link_in_archive", "a link inside an archive; not followed"
        return find_problem(info.filename, info.file_size, info.compress_size)

    def __reduce__(self) -> tuple[type[ZipArchive], tuple[Path]]:
        """Opened again after pickling."""
        return ZipArchive, (self.file,)


@final
class TarArchive(Archive):
    """A tar archive; a compressed one is decompressed into a temporary file, because it can't be read out of order."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._plain = self._decompressed()
        with tarfile.open(self._plain, "r:") as archive:
            infos = [info for info in map(_check_size, archive) if not info.isdir()]
        spans = {in_unicode(clean_name(info.name)): (info.offset_data, info.size) for info in reversed(infos)}
        self._spans = spans  # of several with one name, the first
        self.members = list_members((in_unicode(clean_name(info.name)), self._find_problem(info)) for info in infos)

    def _read(self, path: str, max_bytes: int | None) -> bytes:
        offset, size = self._spans[path]
        with self._plain.open("rb") as file:
            file.seek(offset)
            return file.read(size if max_bytes is None else min(max_bytes, size))

    def _decompressed(self) -> Path:
        with self.file.open("rb") as file:
            head = file.read(8)
        opener = next((opener for magic, opener in DECOMPRESSORS.items() if head.startswith(magic)), None)
        if opener is None:
            return self.file
        plain, left = temporary_folder(self) / "plain.tar", max(MIN_ALLOWANCE_BYTES, MAX_INFLATION * self.file.stat().st_size)
        with opener(self.file) as compressed, plain.open("wb") as copy:
            while data := compressed.read(COPY_BYTES):
                left -= len(data)
                if left < 0:
                    raise BrokenSourceError(self.file, "it unpacks to more than a hundred times its size", EXPECTED)
                copy.write(data)
        return plain

    def _find_problem(self, info: tarfile.TarInfo) -> Problem | None:
        if in_unicode(info.name) != info.name:
            return "name_not_unicode", "its name is not valid UTF-8; rename it"
        if not info.isreg() or info.issparse():
            return "link_in_archive", "a link, device or sparse file inside an archive; not followed"
        return find_problem(info.name, info.size, info.size)


def clean_name(name: str) -> str:
    """The path of a member: ``/`` between folders, no empty and no ``.`` parts."""
    return str(PurePosixPath(name.replace("\\", "/")))


def _check_size(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """``info``; a size below zero would lead the reader back, and around forever."""
    if info.size < 0:
        raise tarfile.ReadError(f"{info.name!r} has a size of {info.size} bytes")
    return info


def list_members(files: Iterable[tuple[str, Problem | None]]) -> dict[str, Entry]:
    """Members by unique path; of several with one name, only the first is read."""
    members: dict[str, Entry] = {}
    for number, (path, problem) in enumerate(files):
        if path in members:
            path = f"{path} (member {number})"
            problem = "repeated_name", "the archive holds another file of this name"
        members[path] = Entry(path, rejected=problem[0], detail=problem[1]) if problem else Entry(path)
    return members


def find_problem(path: str, num_bytes: int, num_packed: int) -> Problem | None:
    """Return why a file is not read because of its name or size, if so.

    Args:
        path: as it is written in the archive.
        num_bytes: of the file.
        num_packed: bytes that it takes in the archive.
    """
    parts = PurePosixPath(path.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or (len(path) > 1 and path[1] == ":"):
        return "unsafe_path", "its name leads out of the archive"
    if num_bytes > (MAX_TABLE_BYTES if path.lower().endswith(TABLE_SUFFIXES) else MAX_MEMBER_BYTES):
        return "too_large", f"it would unpack to {num_bytes / 2**20:,.0f} MiB"
    if num_bytes > SMALL_BYTES and num_bytes > MAX_INFLATION * num_packed:
        return "too_large", f"it would unpack to {num_bytes / 2**20:,.0f} MiB from {num_packed / 2**10:,.0f} KiB"
    return None


@final
class ArchiveSource(Source):
    """Class folders or split folders inside an archive."""

    def __init__(self, archive: Archive, layout: Layout) -> None:
        self.root = archive.file
        self._archive = archive
        self._layout = layout
        self.kind, self.layout = f"archive_of_{layout.kind}", layout.words

    def entries(self) -> Iterator[Entry]:
        """Every file of the archive."""
        for path, member in self._archive.members.items():
            ignored = ignore_reason(path)
            if member.rejected:
                yield member
            elif ignored:
                yield Entry(path, ignored=ignored)
            else:
                yield self._layout.place_file(path, lambda: self._archive.read(path, HEAD_BYTES))  # noqa: B023 - called at once

    def read(self, path: str) -> bytes:
        """The bytes of the member."""
        return self._archive.read(path)

    def class_names(self) -> tuple[str, ...]:
        """Names of all class folders."""
        return self._layout.classes


def refuse_nested_archives(root: Path, listing: Listing) -> None:
    """Refuse a place that holds archives, at its top or one folder below, and no image by its name.

    Args:
        root: what errors name.
        listing: of the place.

    Raises:
        BrokenSourceError: it is such a place.
    """
    folders = ["", *listing.content("").folders]
    archives = [
        f"{folder}/{name}".lstrip("/")
        for folder in folders
        for name in listing.content(folder).others
        if is_archive(Path(name))
    ]
    if not archives or any(map(has_image_suffix, listing.paths())):
        return
    names = ", ".join(archives[:3]) + (" ..." if len(archives) > 3 else "")
    then = f"unpack it and name {archives[0]}" if root.is_file() else f"name the inner one: {root / archives[0]}"
    if len(archives) > 1:
        then = "unpack each into a folder, called like its class if it holds one"
    raise BrokenSourceError(root, f"it holds no images but archives ({names})", f"images; {then}")


@final
class UnpackedSource(Source):
    """A data set of tables in an archive, unpacked into a temporary folder that exists as long as ``archive``."""

    def __init__(self, archive: Archive, outside: Iterable[Entry], inside: Source) -> None:
        self.root = archive.file
        self.kind = f"archive_of_{inside.kind}"
        self._archive = archive
        self._outside, self._inside = tuple(outside), inside

    def entries(self) -> Iterator[Entry]:
        """Every member that was not unpacked, and every image of the tables."""
        yield from self._outside
        yield from self._inside.entries()

    def read(self, path: str) -> bytes:
        """The bytes of the image."""
        return self._inside.read(path)

    def class_names(self) -> tuple[str, ...]:
        """Names of all classes, if the tables have them."""
        return self._inside.class_names()


def open_unpacked(archive: Archive, open_folder: Callable[[Path], Source | None]) -> Source | None:
    """Open a dataset of tables in an archive, unpacked to a temporary folder.

    Args:
        archive: which may hold single images instead.
        open_folder: recognizes a dataset in a folder.

    Returns:
        The dataset; ``None`` if there is none.
    """
    paths = [path for path in archive.members if not ignore_reason(path)]
    if any(map(has_image_suffix, paths)) or not any(DATASET_FILES.fullmatch(PurePosixPath(path).name) for path in paths):
        return None
    folder = temporary_folder(archive)
    outside = [entry for member in archive.members.values() if (entry := _unpack(archive, member, folder))]
    for _ in range(MAX_WRAPPERS + 1):
        if source := open_folder(folder):
            return UnpackedSource(archive, outside, source)
        wrapped = [item for item in folder.iterdir() if item.is_dir()]
        if len(wrapped) != 1:
            break
        folder = wrapped[0]
    return None


def _unpack(archive: Archive, member: Entry, folder: Path) -> Entry | None:
    """Write a member to ``folder``, or give the entry that says why not."""
    if member.rejected:
        return member
    if ignored := ignore_reason(member.path):
        return Entry(member.path, ignored=ignored)
    try:
        data = archive.read(member.path)
        file = folder / member.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    except OSError as error:
        return Entry(member.path, rejected="unreadable", detail=str(error))
    return None
