"""Recognizes what a path is and opens it as a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tarfile import is_tarfile
from typing import BinaryIO, Final
from zipfile import is_zipfile

from automl_tl.data.remote import RemoteFiles, file_name_of, is_url, shown
from automl_tl.data.sources.archives import (
    ARCHIVE_SUFFIXES,
    Archive,
    ArchiveSource,
    is_archive,
    open_archive,
    open_unpacked,
    refuse_nested_archives,
)
from automl_tl.data.sources.files import FileFinder, disk_finder, remote_finder
from automl_tl.data.sources.folders import FolderSource
from automl_tl.data.sources.layout import EXPECTED as EXPECTED_FOLDERS
from automl_tl.data.sources.layout import FORCE, DiskListing, Layout, Listing, PathListing, find_layout, plain_layout
from automl_tl.data.sources.lists import LIST_SUFFIXES
from automl_tl.data.sources.manifests import ManifestSource, Table, find_tables
from automl_tl.data.sources.pixel_arrays import open_cifar, open_mnist
from automl_tl.data.sources.remote_folders import list_folder
from automl_tl.data.sources.shards import ShardSource, is_shard, open_shards
from automl_tl.data.sources.source import Source
from automl_tl.data.sources.tables import open_parquet, open_tables
from automl_tl.errors import BrokenSourceError, DataError, LayoutError, NoImagesError, SourceNotFoundError
from automl_tl.runtime.progress import QUIET, Progress

EXPECTED: Final = (
    "a folder with one folder of images per class; a CSV, TSV, JSON lines or Parquet table with path and label; "
    "a Hugging Face, WebDataset, CIFAR or MNIST folder; a zip or tar of any of these"
)

SHEETS: Final = (".xlsx", ".xls", ".ods")


def open_source(
    path: str | Path, *, classes_are_folders: bool = False, fetch: bool = True, progress: Progress = QUIET
) -> Source:
    """Open the source at ``path``; its kind follows from names and headers, and no image is decoded.

    Images behind URLs are brought into the cache.

    Args:
        path: folder, table, archive or dataset file, or the URL of one.
        classes_are_folders: every folder at the top is a class, whatever it is called; tables beside them are not read.
        fetch: bring all images behind URLs now; otherwise each is brought when it is read.
        progress: receives the progress of downloads, and their failures.

    Raises:
        SourceNotFoundError: nothing is there, or nothing of a known kind.
        BrokenSourceError: a table or archive is damaged, or lacks what it needs; archives hold or lie beside only archives.
        LayoutError: classes and splits of a folder or archive cannot be told apart.
        NoImagesError: a folder that is empty, or holds images without classes.
        RemoteError: a store cannot be reached, or refuses access.
    """
    if is_url(path):
        return _open_url(path, classes_are_folders, fetch, progress)
    source = _open_path(Path(path), classes_are_folders)
    if fetch and isinstance(source, ManifestSource):
        source.fetch(progress)
    return source


def _open_url(url: str, classes_are_folders: bool, fetch: bool, progress: Progress) -> Source:
    """Bring what is behind ``url`` into the cache, and open it there. People are shown the URL."""
    files, name, local = RemoteFiles(), shown(url), None
    try:
        if url.startswith(("http://", "https://")) or file_name_of(url).lower().endswith((*ARCHIVE_SUFFIXES, *LIST_SUFFIXES)):
            local = files.local(files.add(url))
            source = _open_remote_file(local, url, files, classes_are_folders)
        else:
            folder = list_folder(url, files, progress)
            source = _open_archive(folder, classes_are_folders)
            if fetch:
                folder.fetch((entry.path for entry in source.entries() if not (entry.ignored or entry.rejected)), progress)
        if fetch and isinstance(source, ManifestSource):
            source.fetch(progress)
    except DataError as error:
        error.args = (str(error).replace(str(local or Path(name)), name),)
        raise
    source.url, source.kind = name, source.kind if local else source.kind.removeprefix("archive_of_")
    return source


def _open_remote_file(local: Path, url: str, files: RemoteFiles, classes_are_folders: bool) -> Source:
    if is_archive(local) or is_zipfile(local) or is_tarfile(local):
        return _open_archive(open_archive(local), classes_are_folders)
    if local.suffix.lower() == ".parquet" and (source := open_parquet(local)):
        return source
    if local.suffix.lower() in LIST_SUFFIXES:
        return ManifestSource(local, [Table(local.name)], remote_finder(url, files))
    raise SourceNotFoundError(local, "an archive (zip, tar, tar.gz ...) or a table (csv, tsv, jsonl, parquet)")


def _open_path(path: Path, classes_are_folders: bool) -> Source:
    try:
        source = _open_folder(path, classes_are_folders) if path.is_dir() else _open_file(path, classes_are_folders)
    except PermissionError as error:
        raise SourceNotFoundError(path, f"something that may be read ({error.strerror})") from error
    if source is None:
        raise SourceNotFoundError(path, EXPECTED)
    return source


def _open_file(path: Path, classes_are_folders: bool) -> Source | None:
    if not path.is_file():
        return None
    if is_archive(path):
        return _open_archive(open_archive(path), classes_are_folders)
    if path.suffix.lower() == ".parquet" and (source := open_parquet(path)):
        return source
    if path.suffix.lower() in SHEETS:
        raise SourceNotFoundError(path, "a table as CSV; save the sheet as CSV (UTF-8)")
    if path.suffix.lower() in LIST_SUFFIXES:
        return ManifestSource(path, [Table(path.name)], disk_finder(path.parent))
    return None


def _open_archive(archive: Archive, classes_are_folders: bool) -> Source:
    if unpacked := open_unpacked(archive, _open_dataset):
        return unpacked
    if is_shard(archive):
        return ShardSource(archive.file, {"": archive})

    def open_manifest(tables: list[Table]) -> ManifestSource:
        everything = ArchiveSource(archive, plain_layout(listing))
        return ManifestSource(archive.file, tables, finder, archive, everything.entries)

    listing = PathListing(archive.paths())
    finder = FileFinder(listing.paths, archive.members.__contains__)
    found = _recognize(
        archive.file, listing, lambda name: BytesIO(archive.read(name)), finder, open_manifest, classes_are_folders
    )
    return found if isinstance(found, Source) else ArchiveSource(archive, found)


def _open_folder(path: Path, classes_are_folders: bool) -> Source:
    if dataset := _open_dataset(path):
        return dataset

    def open_manifest(tables: list[Table]) -> ManifestSource:
        return ManifestSource(path, tables, finder, list_files=FolderSource(path, plain_layout(listing)).entries)

    listing, finder = DiskListing(path), disk_finder(path)
    found = _recognize(path, listing, lambda name: (path / name).open("rb"), finder, open_manifest, classes_are_folders)
    if isinstance(found, Source):
        return found
    if not found.classes:
        names = sorted(item.name for item in path.iterdir())
        raise NoImagesError(path, ", ".join(names[:5]) + (" ..." if len(names) > 5 else "") if names else "nothing")
    return FolderSource(path, found)


def _recognize(
    root: Path,
    listing: Listing,
    open_file: Callable[[str], BinaryIO],
    finder: FileFinder,
    open_manifest: Callable[[list[Table]], ManifestSource],
    classes_are_folders: bool,
) -> Layout | ManifestSource:
    """The layout of folders; a manifest where tables name the images and the folders are not classes."""
    refuse_nested_archives(root, listing)
    if classes_are_folders:
        return plain_layout(listing)
    try:
        layout, problem = find_layout(listing, root), None
    except LayoutError as error:
        layout, problem = None, error
    if layout and len(layout.classes) > 1:
        with suppress(BrokenSourceError):  # several tables, of which none is meant
            if tables := find_tables(listing, open_file, finder, root, max_depth=1):
                _refuse_disagreement(layout, open_manifest(tables), tables)
        return layout
    if tables := find_tables(listing, open_file, finder, root):
        return open_manifest(tables)
    if problem:
        raise problem
    assert layout
    return layout


def _refuse_disagreement(layout: Layout, manifest: ManifestSource, tables: list[Table]) -> None:
    """Refuse class folders beside a table that gives most of their images other labels."""
    rows = [(layout.place(entry.path).label, entry.label) for entry in manifest.entries() if not entry.ignored and entry.label]
    by_folder = Counter(folder for folder, _ in rows if folder)
    differing = sum(folder is not None and folder != label for folder, label in rows)
    if by_folder and differing > by_folder.total() / 2:
        folders, labels = (", ".join(sorted({str(row[at]) for row in rows if row[0]})[:4]) for at in (0, 1))
        found = f"{tables[0].path} gives other labels ({labels}) than the folders ({folders})"
        advice = f"To use the table, name it: {manifest.root}/{tables[0].path}. {FORCE}"
        raise LayoutError(manifest.root, found, EXPECTED_FOLDERS, advice)


def _open_dataset(path: Path) -> Source | None:
    """The data set that a library wrote to a folder."""
    openers = (open_cifar, open_mnist, open_tables, open_shards)
    return next((source for opener in openers if (source := opener(path))), None)
