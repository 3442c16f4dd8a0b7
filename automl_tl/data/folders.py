"""Folders of images: ``<class>/<image>``, or ``train/ val/ test/`` of such.

The rule: the label is the first folder below the part (or below the root); images deeper inside belong to it too. A single
folder that only wraps the classes is entered. Links are followed only where they lead out of the source, so that neither
loops nor labels by accident arise.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, final

from automl_tl.data.sniffing import IMAGE_SUFFIXES, RAW_SUFFIXES, looks_like_image
from automl_tl.data.source import PART_NAMES, Entry, Source
from automl_tl.values import Part

__all__ = ["FolderSource", "is_litter"]

LITTER_NAMES: Final = frozenset(
    (
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "__macosx",
        "__pycache__",
        "@eadir",
        "lost+found",
        "$recycle.bin",
        "system volume information",
    )
)
LITTER_SUFFIXES: Final = (".tmp", ".part", ".crdownload", "~")
MAX_WRAPPERS: Final = 5
CLOCK_TICK_S: Final = 2.0  # a file written this moment may be written again without its times changing (FAT counts in 2 s)


def is_litter(name: str) -> bool:
    """Whether a file or folder is what operating systems and editors leave behind."""
    return name.lower() in LITTER_NAMES or name.lower().endswith(LITTER_SUFFIXES)


@final
class FolderSource(Source):
    """Class folders, or split folders of class folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real_root = Path(os.path.realpath(root))
        self._bases = _bases(root)
        self.kind = "split_folders" if any(self._bases.values()) else "class_folders"

    def entries(self) -> Iterator[Entry]:
        """Every file below the root, hidden ones and links included."""
        yield from self._walk(PurePosixPath(), {self._real_root}, ignored=None)

    def read(self, path: str) -> bytes:
        """The bytes of the file."""
        return (self.root / path).read_bytes()

    def stamp(self, path: str) -> str | None:
        """Size, times and inode: the change time moves with any write, whoever sets the others back."""
        try:
            found = (self.root / path).stat()
        except OSError:
            return None
        if time.time() - found.st_ctime < CLOCK_TICK_S:
            return None
        return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_ino}"

    def class_names(self) -> tuple[str, ...]:
        """Names of all folders where classes stand."""
        return tuple(sorted({name for base in self._bases for name in _folders(self.root / base)}))

    def _walk(self, folder: PurePosixPath, above: set[Path], ignored: str | None) -> Iterator[Entry]:
        try:
            found = sorted(os.scandir(self.root / folder), key=lambda item: item.name)
        except OSError as error:
            yield self._entry(folder / "", rejected="unreadable", detail=f"the folder can't be listed: {error.strerror}")
            return
        for item in found:
            yield from self._look(folder / item.name, item, above, ignored)

    def _look(self, path: PurePosixPath, item: os.DirEntry[str], above: set[Path], ignored: str | None) -> Iterator[Entry]:
        name = item.name
        ignored = ignored or ("hidden" if name.startswith(".") else "litter" if is_litter(name) else None)
        if not name.isprintable() and _not_unicode(name):
            yield _unnameable(path)
        elif item.is_dir(follow_symlinks=False):
            yield from self._walk(path, above | {Path(os.path.realpath(item.path))}, ignored)
        elif item.is_symlink() and not ignored:
            yield from self._follow(path, item, above)
        elif ignored:
            yield Entry(str(path), ignored=ignored)
        else:
            yield self._file(path, item)

    def _follow(self, path: PurePosixPath, item: os.DirEntry[str], above: set[Path]) -> Iterator[Entry]:
        link = Path(item.path)
        target = Path(os.path.realpath(link))
        try:
            link.stat()
        except OSError as error:
            yield self._entry(path, rejected="dangling_link", detail=f"a link to {link.readlink()}: {error.strerror}")
            return
        if not link.is_dir():
            yield self._file(path, item)
        elif target.is_relative_to(self._real_root) or self._real_root.is_relative_to(target) or target in above:
            detail = f"a link to the folder {link.readlink()} of the same source; not followed"
            yield self._entry(path, rejected="link_to_folder", detail=detail)
        else:
            yield from self._walk(path, above | {target}, None)

    def _file(self, path: PurePosixPath, item: os.DirEntry[str]) -> Entry:
        suffix = path.suffix.lower()
        if not item.is_file():
            return self._entry(path, rejected="special_file", detail="neither a file nor a folder (a pipe, socket or device)")
        if suffix in RAW_SUFFIXES:
            return self._entry(path, rejected="camera_raw", detail=f"a camera raw file ({suffix}); export it as JPEG")
        if suffix not in IMAGE_SUFFIXES:
            try:
                with Path(item.path).open("rb") as file:
                    head = file.read(32)
            except OSError as error:
                return self._entry(path, rejected="unreadable", detail=str(error.strerror))
            if not looks_like_image(head):
                return Entry(str(path), ignored="other_file")
        return self._entry(path)

    def _entry(self, path: PurePosixPath, *, rejected: str | None = None, detail: str = "") -> Entry:
        for base, part in self._bases.items():
            inside = _below(path, base)
            if inside is not None and len(inside) > 1:
                return Entry(str(path), label=inside[0], part=part, rejected=rejected, detail=detail)
        if rejected is None:
            rejected, detail = "no_class", f"it lies in no class folder (expected {_expected(self._bases)})"
        return Entry(str(path), rejected=rejected, detail=detail)


def _bases(root: Path, base: str = "", wrappers: int = 0) -> Mapping[str, Part | None]:
    """Folders, relative to ``root``, in which class folders stand, and the part that each gives."""
    here = root / base
    folders = _folders(here)
    parts = {name: PART_NAMES[name.lower()] for name in folders if name.lower() in PART_NAMES}
    alone = len(parts) == len(folders) > 1  # then a stray image inside train doesn't make it a class
    train = [name for name, part in parts.items() if part == "train"]
    if any(_folders(here / name) and (alone or not _has_images(here / name)) for name in train):
        return {f"{base}{name}": part for name, part in parts.items()}
    if len(folders) == 1 and wrappers < MAX_WRAPPERS and _folders(here / folders[0]):
        inside = here / folders[0]
        if not _has_images(here) and not _has_images(inside):
            return _bases(root, f"{base}{folders[0]}/", wrappers + 1)
    return {base.rstrip("/"): None}


def _folders(folder: Path) -> list[str]:
    """Names of the folders (or links to such) directly inside that may hold images."""
    try:
        found = [item.name for item in os.scandir(folder) if not item.name.startswith(".") and not is_litter(item.name)]
    except OSError:
        return []
    return sorted(name for name in found if (folder / name).is_dir() and not _leads_up(folder / name))


def _leads_up(folder: Path) -> bool:
    return folder.is_symlink() and Path(os.path.realpath(folder.parent)).is_relative_to(os.path.realpath(folder))


def _has_images(folder: Path) -> bool:
    try:
        return any(
            Path(item.name).suffix.lower() in IMAGE_SUFFIXES and item.is_file()
            for item in os.scandir(folder)
            if not item.name.startswith(".")
        )
    except OSError:
        return False


def _below(path: PurePosixPath, base: str) -> tuple[str, ...] | None:
    return path.relative_to(base).parts if not base or path.is_relative_to(base) else None


def _expected(bases: Mapping[str, Part | None]) -> str:
    return " or ".join(f"{base}/<class>/<image>" if base else "<class>/<image>" for base in bases)


def _not_unicode(name: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in name)


def _unnameable(path: PurePosixPath) -> Entry:
    readable = os.fsencode(str(path)).decode("utf-8", "backslashreplace")
    return Entry(readable, rejected="name_not_unicode", detail="its name is no valid UTF-8; rename it")
