"""Folders of images on disk, with everything that lies about in them.

Links are followed only where they lead out of the source, so that neither loops nor labels by accident arise.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import final

from automl_tl.data.sniffing import HEAD_BYTES, IMAGE_SUFFIXES, RAW_SUFFIXES, looks_like_image
from automl_tl.data.sources.layout import aside, find_layout
from automl_tl.data.sources.source import Entry, Source, file_stamp

__all__ = ["FolderSource"]


@final
class FolderSource(Source):
    """Class folders, or split folders of class folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real_root = Path(os.path.realpath(root))
        self._layout = find_layout(_Disk(root))
        self.kind = self._layout.kind

    def entries(self) -> Iterator[Entry]:
        """Every file below the root, hidden ones and links included."""
        yield from self._walk("", {self._real_root}, ignored=None)

    def read(self, path: str) -> bytes:
        """The bytes of the file."""
        with open(f"{self.root}/{path}", "rb") as file:  # noqa: PTH123 - see _walk
            return file.read()

    def stamp(self, path: str) -> str | None:
        """Size, times and inode of the file."""
        return file_stamp(f"{self.root}/{path}")

    def class_names(self) -> tuple[str, ...]:
        """Names of all folders where classes stand."""
        return self._layout.classes

    # Paths are texts here: for 100,000 files, path objects would take twice the time of all else in this walk.
    def _walk(self, folder: str, above: set[Path], ignored: str | None) -> Iterator[Entry]:
        try:
            with os.scandir(self.root / folder) as found:
                for item in found:  # one by one: a folder may hold a million files
                    yield from self._look(f"{folder}/{item.name}" if folder else item.name, item, above, ignored)
        except OSError as error:
            yield self._row(folder, "unreadable", f"the folder can't be listed: {error.strerror}")

    def _look(self, path: str, item: os.DirEntry[str], above: set[Path], ignored: str | None) -> Iterator[Entry]:
        ignored = ignored or aside(item.name)
        if _not_unicode(item.name):
            yield _unnameable(path)
        elif item.is_dir(follow_symlinks=False):
            yield from self._walk(path, above | {Path(os.path.realpath(item.path))}, ignored)
        elif item.is_symlink() and not ignored:
            yield from self._follow(path, Path(item.path), above)
        elif ignored:
            yield Entry(path, ignored=ignored)
        else:
            yield self._file(path, item.path, is_file=item.is_file())

    def _follow(self, path: str, link: Path, above: set[Path]) -> Iterator[Entry]:
        target = Path(os.path.realpath(link))
        try:
            link.stat()
        except OSError as error:
            yield self._row(path, "dangling_link", f"a link to {link.readlink()}: {error.strerror}")
            return
        if not link.is_dir():
            yield self._file(path, str(link), is_file=link.is_file())
        elif target.is_relative_to(self._real_root) or self._real_root.is_relative_to(target) or target in above:
            yield self._row(path, "link_to_folder", f"a link to the folder {link.readlink()} of the same source; not followed")
        else:
            yield from self._walk(path, above | {target}, None)

    def _file(self, path: str, file: str, *, is_file: bool) -> Entry:
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - see _walk
        if not is_file:
            return self._row(path, "special_file", "neither a file nor a folder (a pipe, socket or device)")
        if suffix in RAW_SUFFIXES:
            return self._row(path, "camera_raw", f"a camera raw file ({suffix}); export it as JPEG")
        if suffix not in IMAGE_SUFFIXES:
            try:
                with Path(file).open("rb") as opened:
                    head = opened.read(HEAD_BYTES)
            except OSError as error:
                return self._row(path, "unreadable", str(error.strerror))
            if not looks_like_image(head):
                return Entry(path, ignored="other_file")
        return self._layout.place(path)

    def _row(self, path: str, rejected: str, detail: str) -> Entry:
        return self._layout.place(path, rejected=rejected, detail=detail)


class _Disk:
    """Listing of a folder on disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folders(self, folder: str) -> list[str]:
        """Names of the folders, or links to such, directly inside that may hold images."""
        here = self._root / folder
        return sorted(name for name in self._names(here) if (here / name).is_dir() and not _leads_up(here / name))

    def has_images(self, folder: str) -> bool:
        """Whether an image, by its name, lies directly inside."""
        here = self._root / folder
        return any(Path(name).suffix.lower() in IMAGE_SUFFIXES and (here / name).is_file() for name in self._names(here))

    def _names(self, here: Path) -> Iterator[str]:
        with suppress(OSError), os.scandir(here) as found:
            yield from (item.name for item in found if not aside(item.name) and not _not_unicode(item.name))


def _leads_up(folder: Path) -> bool:
    return folder.is_symlink() and Path(os.path.realpath(folder.parent)).is_relative_to(os.path.realpath(folder))


def _not_unicode(name: str) -> bool:
    return not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name)


def _unnameable(path: str) -> Entry:
    readable = os.fsencode(path).decode("utf-8", "backslashreplace")
    return Entry(readable, rejected="name_not_unicode", detail="its name is no valid UTF-8; rename it")
