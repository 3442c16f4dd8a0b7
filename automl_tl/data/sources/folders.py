"""Folders of images on disk, and the rule that finds the class folders, on disk and in archives alike.

The label is the first folder below a split folder (or below the root); images deeper inside belong to it too. A single
folder that only wraps the classes is entered. ``train`` is a split folder beside other split folders, or if it holds
folders and no images. Links are followed only where they lead out of the source: no loops, no accidental labels.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, final

from automl_tl.data.image_formats import HEAD_BYTES, IMAGE_SUFFIXES, RAW_SUFFIXES, has_image_suffix, looks_like_image
from automl_tl.data.sources.source import SPLIT_NAMES, Entry, Source, file_stamp
from automl_tl.values import SplitName

LITTER_NAMES: Final = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "@eadir", "lost+found")
) | {"$recycle.bin", "system volume information"}
LITTER_SUFFIXES: Final = (".tmp", ".part", ".crdownload", "~")
MAX_WRAPPERS: Final = 5


def ignore_reason(path: str) -> str | None:
    """Why a file at ``path`` is ignored because of a name in it, if so."""
    for name in path.split("/"):
        if name.startswith(".") and name != ".":
            return "hidden"
        if name.lower() in LITTER_NAMES or name.lower().endswith(LITTER_SUFFIXES):
            return "litter"
    return None


@final
class PathListing:
    """The folders of a tree given by the paths of its files; folders are named by paths relative to its root, ``""``."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._folders: dict[str, set[str]] = defaultdict(set)
        self._with_images: set[str] = set()
        for path in paths:
            if not ignore_reason(path):
                *folders, name = PurePosixPath(path).parts
                for depth, folder in enumerate(folders):
                    self._folders["/".join(folders[:depth])].add(folder)
                if has_image_suffix(name):
                    self._with_images.add("/".join(folders))

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly inside, sorted."""
        return sorted(self._folders.get(folder, ()))

    def has_images(self, folder: str) -> bool:
        """Whether a file with the suffix of an image is directly inside."""
        return folder in self._with_images


@final
class DiskListing:
    """The folders of a tree on disk, links to folders included."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly inside, but for links to a parent of theirs, sorted."""
        return sorted(item.name for item in self._items(folder) if item.is_dir() and not _leads_up(item))

    def has_images(self, folder: str) -> bool:
        """Whether a file with the suffix of an image is directly inside."""
        return any(has_image_suffix(item.name) and item.is_file() for item in self._items(folder))

    def _items(self, folder: str) -> Iterator[Path]:
        with suppress(OSError):
            items = (self._root / folder).iterdir()
            yield from (item for item in items if not ignore_reason(item.name) and not _has_surrogates(item.name))


def _leads_up(folder: Path) -> bool:
    return folder.is_symlink() and Path(os.path.realpath(folder.parent)).is_relative_to(os.path.realpath(folder))


def _has_surrogates(name: str) -> bool:
    """Whether ``name`` stands for bytes that are not UTF-8."""
    return not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name)


@dataclass(frozen=True)
class Layout:
    """Which folders hold class folders: path relative to the root -> split that it stands for."""

    kind: str  # class_folders or split_folders
    bases: dict[str, SplitName | None]
    classes: tuple[str, ...]

    def place(self, path: str, rejected: str | None = None, detail: str = "") -> Entry:
        """The entry of the file at ``path``, ``rejected`` as given or because it is not in a class folder."""
        for base, split in self.bases.items():
            if not base or path.startswith(f"{base}/"):
                names = [name for name in path[len(base) :].split("/") if name not in ("", ".")]
                if len(names) > 1:
                    return Entry(path, names[0], split, rejected=rejected, detail=detail)
        if rejected is None:
            expected = " or ".join(f"{base}/<class>/<image>" if base else "<class>/<image>" for base in self.bases)
            rejected, detail = "no_class", f"it is not in a class folder (expected {expected})"
        return Entry(path, rejected=rejected, detail=detail)

    def place_file(self, path: str, read_head: Callable[[], bytes]) -> Entry:
        """The entry of the file at ``path``: an image, camera raw or another file, by its suffix or its first bytes."""
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - see FolderSource._walk
        if suffix in RAW_SUFFIXES:
            return self.place(path, "camera_raw", f"a camera raw file ({suffix}); export it as JPEG")
        if suffix not in IMAGE_SUFFIXES:
            try:
                head = read_head()
            except OSError as error:
                return self.place(path, "unreadable", error.strerror or str(error))
            if not looks_like_image(head):
                return Entry(path, ignored="other_file")
        return self.place(path)


def find_layout(listing: PathListing | DiskListing) -> Layout:
    """The layout of a tree, by the names of its folders; every tree has one."""
    bases = _find_bases(listing, "", 0)
    kind = "split_folders" if any(bases.values()) else "class_folders"
    return Layout(kind, bases, tuple(sorted({name for base in bases for name in listing.folders(base)})))


def _find_bases(listing: PathListing | DiskListing, base: str, wrappers: int) -> dict[str, SplitName | None]:
    folders = listing.folders(base)
    paths = {name: f"{base}/{name}" if base else name for name in folders}
    splits: dict[str, SplitName] = {name: SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES}
    only_splits = len(splits) == len(folders) > 1  # then a stray image in train does not make it a class
    train = [paths[name] for name, split in splits.items() if split == "train"]
    if any(listing.folders(path) and (only_splits or not listing.has_images(path)) for path in train):
        return {paths[name]: split for name, split in splits.items()}
    if len(folders) == 1 and wrappers < MAX_WRAPPERS and listing.folders(paths[folders[0]]):
        inside = paths[folders[0]]
        if not listing.has_images(base) and not listing.has_images(inside):
            return _find_bases(listing, inside, wrappers + 1)
    return {base: None}


@final
class FolderSource(Source):
    """Class folders, or split folders of class folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real_root = Path(os.path.realpath(root))
        self._layout = find_layout(DiskListing(root))
        self.kind = self._layout.kind

    def entries(self) -> Iterator[Entry]:
        """Every file below the root, hidden ones and links included."""
        yield from self._walk("", {self._real_root}, None)

    def read(self, path: str) -> bytes:
        """The bytes of the file."""
        with open(f"{self.root}/{path}", "rb") as file:  # noqa: PTH123 - see _walk
            return file.read()

    def stamp(self, path: str) -> str | None:
        """Size, times and inode of the file."""
        return file_stamp(f"{self.root}/{path}")

    def class_names(self) -> tuple[str, ...]:
        """Names of all class folders."""
        return self._layout.classes

    # Paths are strings here: for 100,000 files, path objects would take twice the time of everything else in this walk.
    def _walk(self, folder: str, parents: set[Path], ignored_folder: str | None) -> Iterator[Entry]:
        try:
            with os.scandir(self.root / folder) as items:
                for item in items:
                    path = f"{folder}/{item.name}" if folder else item.name
                    ignored = ignored_folder or ignore_reason(item.name)
                    if _has_surrogates(item.name):
                        readable = os.fsencode(path).decode("utf-8", "backslashreplace")
                        yield Entry(readable, rejected="name_not_unicode", detail="its name is not valid UTF-8; rename it")
                    elif item.is_dir(follow_symlinks=False):
                        yield from self._walk(path, parents | {Path(os.path.realpath(item.path))}, ignored)
                    elif item.is_symlink() and not ignored:
                        yield from self._follow(path, Path(item.path), parents)
                    elif ignored:
                        yield Entry(path, ignored=ignored)
                    else:
                        yield self._place_file(path, is_file=item.is_file())
        except OSError as error:
            yield self._layout.place(folder, "unreadable", f"cannot list the folder: {error.strerror}")

    def _follow(self, path: str, link: Path, parents: set[Path]) -> Iterator[Entry]:
        target = Path(os.path.realpath(link))
        try:
            link.stat()
        except OSError as error:
            yield self._layout.place(path, "dangling_link", f"a link to {link.readlink()}: {error.strerror}")
            return
        if not link.is_dir():
            yield self._place_file(path, is_file=link.is_file())
        elif target.is_relative_to(self._real_root) or self._real_root.is_relative_to(target) or target in parents:
            detail = f"a link to the folder {link.readlink()} of the same source; not followed"
            yield self._layout.place(path, "link_to_folder", detail)
        else:
            yield from self._walk(path, parents | {target}, None)

    def _place_file(self, path: str, *, is_file: bool) -> Entry:
        if not is_file:
            return self._layout.place(path, "special_file", "neither a file nor a folder (a pipe, socket or device)")

        def read_head() -> bytes:
            with (self.root / path).open("rb") as file:
                return file.read(HEAD_BYTES)

        return self._layout.place_file(path, read_head)
