"""Reading an export that anybody may have made: a folder, ``.tar`` or ``.zip``. Gives names, sizes and bytes.

Nothing is written and nothing extracted: members are read by their plain names, one after the other, and no more bytes than
were declared. An archive with a link, a folder, a device, a path, an unknown or a repeated name is refused as a whole.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from automl_tl_registry.disk import CHUNK_BYTES
from automl_tl_registry.errors import SourceNotFoundError, UnsafeArchiveError
from automl_tl_registry.exporting import CARD_FILE, MANIFEST_FILE, SUMMARY_FILE

__all__ = ["Package", "opened"]

MAX_MEMBERS: Final = 64
_ALLOWED: Final = re.compile(rf"[a-z][a-z0-9_]{{0,31}}\.safetensors|{re.escape(SUMMARY_FILE)}|{re.escape(CARD_FILE)}")
_BROKEN: Final = (  # what tarfile and zipfile raise at damaged or hostile input
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Package:
    """The files of an export: sizes by name, and a way to open each."""

    path: Path
    sizes: dict[str, int]
    open: Callable[[str], IO[bytes]]

    def chunks(self, name: str) -> Iterator[bytes]:
        """Bytes of a file, no more than its size."""
        left = self.sizes[name]
        try:
            with self.open(name) as stream:
                while left > 0 and (chunk := stream.read(min(left, CHUNK_BYTES))):
                    left -= len(chunk)
                    yield chunk
        except _BROKEN as error:
            raise UnsafeArchiveError(self.path, [f"{name} can't be read: {error}"]) from error

    def check_has(self, names: list[str]) -> None:
        """Raise UnsafeArchiveError if one of ``names`` is missing."""
        missing = [f"{name} is missing" for name in names if name not in self.sizes]
        if missing:
            raise UnsafeArchiveError(self.path, missing)


@contextmanager
def opened(path: Path) -> Iterator[Package]:
    """The export at ``path``.

    Raises:
        SourceNotFoundError: there is none.
        UnsafeArchiveError: it holds what no export holds.
    """
    if path.is_dir():
        yield _folder(path)
        return
    if not path.is_file():
        raise SourceNotFoundError(path, what="export (a folder, .tar or .zip)")
    with ExitStack() as stack:
        try:
            if zipfile.is_zipfile(path):
                package = _zip(path, stack.enter_context(zipfile.ZipFile(path)))
            else:
                package = _tar(path, stack.enter_context(tarfile.open(path, "r:")))
        except _BROKEN as error:
            raise UnsafeArchiveError(path, [f"it can't be read as .tar or .zip: {error}"]) from error
        yield package


def _folder(path: Path) -> Package:
    """Other files than ours are left alone: it is the user's folder. But ours must be plain files."""
    ours = [each for each in sorted(path.iterdir()) if _ALLOWED.fullmatch(each.name)]
    problems = [f"{each.name} is not a plain file" for each in ours if each.is_symlink() or not each.is_file()]
    if problems:
        raise UnsafeArchiveError(path, problems)
    package = Package(path, {each.name: each.stat().st_size for each in ours}, lambda name: (path / name).open("rb"))
    package.check_has([MANIFEST_FILE])
    return package


def _zip(path: Path, archive: zipfile.ZipFile) -> Package:
    members = [(each.filename, each.file_size, _zip_kind(each)) for each in archive.infolist()[: MAX_MEMBERS + 1]]
    return _judged(path, members, archive.open)


def _zip_kind(member: zipfile.ZipInfo) -> str:
    kind = member.external_attr >> 28  # high bits of the Unix mode, 0 where another system wrote it
    return "file" if kind in (0, 8) and not member.is_dir() else "link or folder"


def _tar(path: Path, archive: tarfile.TarFile) -> Package:
    members, files = [], {}
    for member in archive:
        plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
        members.append((member.name, member.size, "file" if plain else "link, folder or device"))
        files[member.name] = member
        if len(members) > MAX_MEMBERS:
            break
    return _judged(path, members, lambda name: _extracted(archive, files[name]))


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(member)
    if stream is None:
        raise ValueError("not a plain file")
    return stream


def _judged(path: Path, members: list[tuple[str, int, str]], open_member: Callable[[str], IO[bytes]]) -> Package:
    problems = [f"{name[:100]!a} is a {kind}" for name, _, kind in members if kind != "file"]
    problems += [f"{name[:100]!a} is not a name in an export" for name, _, _ in members if not _ALLOWED.fullmatch(name)]
    names = [name for name, _, _ in members]
    problems += [f"{name[:100]!a} occurs twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if len(members) > MAX_MEMBERS:
        problems = [f"it has more than {MAX_MEMBERS} members"]
    if problems:
        raise UnsafeArchiveError(path, problems[:5])
    package = Package(path, {name: size for name, size, _ in members}, open_member)
    package.check_has([MANIFEST_FILE])
    return package
