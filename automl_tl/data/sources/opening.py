"""Recognises what a path is and opens it as a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from automl_tl.data.sources.archive_sources import open_archive, open_shards
from automl_tl.data.sources.archives import ARCHIVE_SUFFIXES, open_files
from automl_tl.data.sources.folders import FolderSource
from automl_tl.data.sources.manifests import MANIFEST_SUFFIXES, ManifestSource, is_manifest
from automl_tl.data.sources.pixel_arrays import cifar_batches, mnist_pairs, open_cifar, open_mnist, open_packed
from automl_tl.data.sources.source import Source
from automl_tl.data.sources.tables import TableSource, holds_images, saved_tables
from automl_tl.errors import BrokenSourceError, NoImagesError, SourceNotFoundError

__all__ = ["open_source"]

EXPECTED: Final = (
    "a folder with one folder of images per class; a CSV, TSV or Parquet table with path and label; "
    "a Hugging Face, WebDataset, CIFAR or MNIST folder; a zip or tar of any of these"
)


def open_source(path: Path) -> Source:
    """The source at ``path``: what it is follows from names and headers, and no image is decoded.

    Raises:
        SourceNotFoundError: nothing is there, or nothing that we know.
        BrokenSourceError: a table or archive is damaged, or lacks what it needs.
        NoImagesError: a folder that is empty, or holds images without classes.
    """
    path = Path(path)
    try:
        source = _open_folder(path) if path.is_dir() else _open_file(path)
    except PermissionError as error:
        raise SourceNotFoundError(path, f"something that may be read ({error.strerror})") from error
    if source is None:
        raise SourceNotFoundError(path, EXPECTED)
    return source


def _open_file(path: Path) -> Source | None:
    name = path.name.lower()
    if not path.is_file():
        return None
    if name.endswith(ARCHIVE_SUFFIXES):
        files = open_files(path)
        return open_packed(path, files, _open_special) or open_archive(path, files)
    if name.endswith(".parquet") and holds_images(path):
        return TableSource(path, [path])
    if name.endswith(MANIFEST_SUFFIXES):
        return ManifestSource(path, path.open("rb"), path.name)
    return None


def _open_folder(path: Path) -> Source:
    special = _open_special(path)
    if special:
        return special
    folders = FolderSource(path)
    manifest = _manifest_in(path, folders) if len(folders.class_names()) < 2 else None
    if manifest:
        return manifest
    if not folders.class_names():
        found = sorted(item.name for item in path.iterdir())
        raise NoImagesError(path, ", ".join(found[:5]) + (" ..." if len(found) > 5 else "") if found else "nothing")
    return folders


def _open_special(path: Path) -> Source | None:
    """The source in a folder that a library wrote."""
    return next(filter(None, (open_special(path) for open_special in SPECIALS)), None)


def _cifar(path: Path) -> Source | None:
    places = [path, *(path / name for name in ("cifar-10-batches-py", "cifar-100-python"))]
    return next((open_cifar(place) for place in places if cifar_batches(place)), None)


def _mnist(path: Path) -> Source | None:
    return open_mnist(path) if mnist_pairs(path) else None


def _tables(path: Path) -> Source | None:
    saved = saved_tables(path)
    if saved:
        return TableSource(path, saved)
    parquet = sorted(file for depth in ("*.parquet", "*/*.parquet") for file in path.glob(depth))
    return TableSource(path, parquet) if parquet and holds_images(parquet[0]) else None


def _shards(path: Path) -> Source | None:
    shards = sorted(file for suffix in (".tar", ".tar.gz", ".tgz") for file in path.glob(f"*{suffix}"))
    return open_shards(path, shards) if shards else None


def _manifest_in(path: Path, folders: FolderSource) -> Source | None:
    tables = sorted(file for suffix in MANIFEST_SUFFIXES for file in path.glob(f"*{suffix}"))
    found = [file for file in tables if is_manifest(file.open("rb"), file.name)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise BrokenSourceError(path, f"it holds several tables of images ({names})", f"one; or name it: {found[0]}")
    return ManifestSource(found[0], found[0].open("rb"), found[0].name, beside=folders.entries) if found else None


SPECIALS: Final[tuple[Callable[[Path], Source | None], ...]] = (_cifar, _mnist, _tables, _shards)
