"""A folder of a bucket or another remote file system, read like an archive: its keys are the members.

Odd keys are treated as odd names in an archive are, and collide with nothing, because they never become file names.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, final

from automl_tl.data.image_formats import HEAD_BYTES, IMAGE_SUFFIXES, RAW_SUFFIXES, has_image_suffix
from automl_tl.data.remote import RemoteFiles, RemoteObject, shown
from automl_tl.data.sources.archives import DATASET_FILES, Archive, clean_name, find_problem, list_members
from automl_tl.data.sources.layout import ignore_reason
from automl_tl.errors import ResourceError, SourceNotFoundError
from automl_tl.runtime.paths import cache_dir, read_limit
from automl_tl.runtime.progress import Progress

KNOWN_SUFFIXES: Final = IMAGE_SUFFIXES | RAW_SUFFIXES
SPARE_BYTES: Final = 2**28  # what a download leaves free on the disk


@final
class RemoteFolder(Archive):
    """The objects below a URL. ``fetch`` brings them in parallel; what is read without it is brought one by one."""

    def __init__(self, url: str, files: RemoteFiles, objects: Sequence[RemoteObject]) -> None:
        self.file = Path(shown(url))  # for messages; nothing is there
        self._url, self._files = shown(url).rstrip("/"), files
        prefix = len(self._url) + 1
        keys = [clean_name(item.url[prefix:]) for item in objects]
        self._objects = {key: item for key, item in zip(reversed(keys), reversed(objects), strict=True)}
        self.members = list_members(
            (key, find_problem(item.url[prefix:], item.size, item.size)) for key, item in zip(keys, objects, strict=True)
        )

    def _read(self, path: str, max_bytes: int | None) -> bytes:
        item = self._objects[path]
        return self._files.read(item.url, max_bytes) if item.size else b""

    def fetch_heads(self, progress: Progress) -> None:
        """Bring the first bytes of all files that their names do not tell to be images.

        A folder without images by name may be a dataset of tables, whose files are brought as a whole.
        """
        paths = [path for path in self.paths() if not ignore_reason(path)]
        tables = [path for path in paths if DATASET_FILES.fullmatch(PurePosixPath(path).name)]
        if tables and not any(map(has_image_suffix, paths)):
            self.fetch(tables, progress)
        else:
            others = [path for path in paths if PurePosixPath(path).suffix.lower() not in KNOWN_SUFFIXES]
            self._files.fetch(self._urls(others), progress, head_bytes=HEAD_BYTES)

    def fetch(self, paths: Iterable[str], progress: Progress) -> None:
        """Bring files.

        Args:
            paths: of members; others are left out.
            progress: receives progress, the size of the download and the failures.

        Raises:
            ResourceError: the disk has not enough space.
        """
        paths = [path for path in paths if path in self._objects]
        missing = [path for path in paths if not self._files.has(self._objects[path].url)]
        num_bytes = sum(self._objects[path].size for path in missing)
        if missing:
            size = f"{len(missing):,} of {len(paths):,} objects to download ({num_bytes / 2**20:,.1f} MiB)"
            progress.info(f"{self._url}: {size}")
        _check_space(num_bytes, progress)
        self._files.fetch(self._urls(paths), progress)

    def _urls(self, paths: Iterable[str]) -> list[str]:
        return [self._objects[path].url for path in paths if self._objects[path].size]


def list_folder(url: str, files: RemoteFiles, progress: Progress) -> RemoteFolder:
    """List a remote folder, and bring what is needed to recognize it.

    Args:
        url: of the folder.
        files: that bring the objects.
        progress: receives progress.

    Raises:
        SourceNotFoundError: nothing is there.
        RemoteError: the store cannot be reached, or refuses access.
    """
    objects = files.list(url, progress)
    if not objects:
        raise SourceNotFoundError(shown(url), "objects below it; there are none")
    progress.info(f"{shown(url)}: {len(objects):,} objects listed")
    folder = RemoteFolder(url, files, objects)
    folder.fetch_heads(progress)
    return folder


def _check_space(num_bytes: int, progress: Progress) -> None:
    """Refuse a download that does not fit on the disk; warn of one that the cache does not keep."""
    folder = cache_dir()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if num_bytes > free - SPARE_BYTES:
        raise ResourceError(
            f"The download needs {num_bytes / 2**20:,.0f} MiB, and {folder} has {free / 2**20:,.0f} MiB free. Set TL_HOME to a "
            "folder on a larger disk, or name a smaller folder or a table of fewer images.",
            folder,
        )
    if num_bytes > read_limit(folder) * 2**20:
        progress.warn(
            f"The download is larger than the limit of the cache ({read_limit(folder):,.0f} MiB), which drops it an hour "
            "after its last use; `tl cache limit` sets another one."
        )
