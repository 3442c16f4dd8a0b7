"""Recognizes what a path is and opens it as a source."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Final

from automl_tl.data.sources.archives import Archive, ArchiveSource, is_archive, open_archive, open_unpacked
from automl_tl.data.sources.folders import FolderSource
from automl_tl.data.sources.manifests import LIST_SUFFIXES, MANIFEST_SUFFIXES, ManifestSource, is_manifest
from automl_tl.data.sources.pixel_arrays import open_cifar, open_mnist
from automl_tl.data.sources.shards import ShardSource, is_shard, open_shards
from automl_tl.data.sources.source import Source
from automl_tl.data.sources.tables import open_parquet, open_tables
from automl_tl.errors import BrokenSourceError, NoImagesError, SourceNotFoundError

EXPECTED: Final = (
    "a folder with one folder of images per class; a CSV, TSV, JSON lines or Parquet table with path and label; "
    "a Hugging Face, WebDataset, CIFAR or MNIST folder; a zip or tar of any of these"
)


def open_source(path: Path) -> Source:
    """The source at ``path``; its kind follows from names and headers, and no image is decoded.

    Raises:
        SourceNotFoundError: nothing is there, or nothing of a known kind.
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
    if not path.is_file():
        return None
    if is_archive(path):
        return _open_archive(open_archive(path))
    if path.suffix.lower() == ".parquet" and (source := open_parquet(path)):
        return source
    if path.suffix.lower() in LIST_SUFFIXES:
        return ManifestSource(path, path.name)
    return None


def _open_archive(archive: Archive) -> Source:
    if unpacked := open_unpacked(archive, _open_dataset):
        return unpacked
    if is_shard(archive):
        return ShardSource(archive.file, {"": archive})
    source = ArchiveSource(archive)
    manifest = _find_manifest(archive) if len(source.class_names()) < 2 else None
    if manifest:
        return ManifestSource(archive.file, manifest, archive, source.entries)
    return source


def _open_folder(path: Path) -> Source:
    if dataset := _open_dataset(path):
        return dataset
    source = FolderSource(path)
    if len(source.class_names()) < 2 and (manifest := _open_manifest(path, source)):
        return manifest
    if not source.class_names():
        names = sorted(item.name for item in path.iterdir())
        raise NoImagesError(path, ", ".join(names[:5]) + (" ..." if len(names) > 5 else "") if names else "nothing")
    return source


def _open_dataset(path: Path) -> Source | None:
    """The data set that a library wrote to a folder."""
    openers = (open_cifar, open_mnist, open_tables, open_shards)
    return next((source for opener in openers if (source := opener(path))), None)


def _open_manifest(path: Path, folders: FolderSource) -> Source | None:
    files = sorted(file for suffix in MANIFEST_SUFFIXES for file in path.glob(f"*{suffix}"))
    tables = [file for file in files if is_manifest(lambda: file.open("rb"), file.name)]  # noqa: B023 - called at once
    if len(tables) > 1:
        names = ", ".join(file.name for file in tables)
        raise BrokenSourceError(path, f"it holds several tables of images ({names})", f"one; or name it: {tables[0]}")
    return ManifestSource(tables[0], tables[0].name, list_files=folders.entries) if tables else None


def _find_manifest(archive: Archive) -> str | None:
    """Path of the first table at the top of an archive, or one folder below."""
    paths = [path for path in archive.paths() if path.lower().endswith(MANIFEST_SUFFIXES) and path.count("/") <= 1]
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        if is_manifest(lambda: BytesIO(archive.read(path)), path):  # noqa: B023 - called at once
            return path
    return None
