"""Which folders are classes and which are parts: one rule for folders on disk and inside archives.

The label is the first folder below the part (or below the root); images deeper inside belong to it too. A single folder
that only wraps the classes is entered. ``train`` beside other parts, or with folders but no images inside, is a part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal, Protocol

from automl_tl.data.sniffing import IMAGE_SUFFIXES
from automl_tl.data.sources.source import PART_NAMES, Entry
from automl_tl.values import SplitName

__all__ = ["Layout", "Listing", "NamesListing", "aside", "find_layout"]

LITTER_NAMES: Final = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "@eadir", "lost+found")
) | {"$recycle.bin", "system volume information"}
LITTER_SUFFIXES: Final = (".tmp", ".part", ".crdownload", "~")
MAX_WRAPPERS: Final = 5


class Listing(Protocol):
    """What the rule needs to know of a tree; folders are POSIX paths relative to its root, which is ``""``."""

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly inside that may hold images, sorted."""

    def has_images(self, folder: str) -> bool:
        """Whether an image, by its name, lies directly inside."""


def aside(name: str) -> Literal["hidden", "litter"] | None:
    """Why a file or folder of this name is left aside, if it is."""
    if name.startswith("."):
        return "hidden"
    return "litter" if name.lower() in LITTER_NAMES or name.lower().endswith(LITTER_SUFFIXES) else None


@dataclass(frozen=True)
class Layout:
    """Where classes stand: folder (relative to the root) -> the part that it gives."""

    bases: dict[str, SplitName | None]
    classes: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Split folders or class folders."""
        return "split_folders" if any(self.bases.values()) else "class_folders"

    def place(self, path: str, *, rejected: str | None = None, detail: str = "") -> Entry:
        """The entry of the file at ``path``; rejected if it lies in no class folder."""
        for base, part in self.bases.items():
            if not base or path.startswith(f"{base}/"):
                inside = [name for name in path[len(base) :].split("/") if name not in ("", ".")]
                if len(inside) > 1:
                    return Entry(path, label=inside[0], split=part, rejected=rejected, detail=detail)
        if rejected is None:
            wanted = " or ".join(f"{base}/<class>/<image>" if base else "<class>/<image>" for base in self.bases)
            rejected, detail = "no_class", f"it lies in no class folder (expected {wanted})"
        return Entry(path, rejected=rejected, detail=detail)


def find_layout(listing: Listing) -> Layout:
    """The layout of a tree by its folders; total, whatever they are called."""
    bases = _bases(listing, "", 0)
    return Layout(bases, tuple(sorted({name for base in bases for name in listing.folders(base)})))


class NamesListing:
    """Listing of a tree given by the paths of its files."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._folders: dict[str, set[str]] = defaultdict(set)
        self._images: set[str] = set()
        for path in paths:
            parts = PurePosixPath(path).parts
            if not any(aside(part) for part in parts):
                for depth in range(len(parts) - 1):
                    self._folders["/".join(parts[:depth])].add(parts[depth])
                if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES:
                    self._images.add("/".join(parts[:-1]))

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly inside."""
        return sorted(self._folders.get(folder, ()))

    def has_images(self, folder: str) -> bool:
        """Whether an image, by its name, lies directly inside."""
        return folder in self._images


def _bases(listing: Listing, base: str, wrappers: int) -> dict[str, SplitName | None]:
    folders = listing.folders(base)
    paths = {name: f"{base}/{name}" if base else name for name in folders}
    parts: dict[str, SplitName] = {name: PART_NAMES[name.lower()] for name in folders if name.lower() in PART_NAMES}
    alone = len(parts) == len(folders) > 1  # then a stray image inside train doesn't make it a class
    train = [paths[name] for name, part in parts.items() if part == "train"]
    if any(listing.folders(path) and (alone or not listing.has_images(path)) for path in train):
        return {paths[name]: part for name, part in parts.items()}
    if len(folders) == 1 and wrappers < MAX_WRAPPERS and listing.folders(paths[folders[0]]):
        inside = paths[folders[0]]
        if not listing.has_images(base) and not listing.has_images(inside):
            return _bases(listing, inside, wrappers + 1)
    return {base: None}
