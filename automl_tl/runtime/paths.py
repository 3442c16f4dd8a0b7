"""Default folders, and the cache: its contents by kind and its size limit.

Folders are below ``TL_HOME`` if that is set, else in the platform's user directories. Everything in the cache can be computed
again. The least recently used entries are removed first, each as a whole: a store of activations, an engine, a checkpoint.
Entries used within the last hour stay, as another process may be using them.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, NamedTuple

from platformdirs import user_cache_path, user_data_path

from automl_tl.errors import ResourceError
from automl_tl_registry.errors import StorageError

_log = logging.getLogger(__name__)
KINDS: Final = ("activations", "checks", "engines", "objects", "runs", "speed", "web")
IN_USE_S: Final = 3600.0
LIMIT_FILE: Final = "limit.json"
DEFAULT_LIMIT_MIB: Final = 10 * 1024.0


def registry_dir() -> Path:
    """Return the folder of the default registry.

    Raises:
        ResourceError: ``TL_HOME`` cannot be a folder, or it is not set and the user has no home.
    """
    return (_tl_home() or _user_folder(user_data_path)) / "registry"


def executors_file() -> Path:
    """Return the file that names executors; see ``registry_dir`` for its errors."""
    return registry_dir().with_name("executors.toml")


def splits_dir() -> Path:
    """Return the folder of saved splits, which keep images in the same split when a dataset grows."""
    return registry_dir().with_name("splits")


def cache_dir() -> Path:
    """Return the folder of files that can be computed again; see ``registry_dir`` for its errors."""
    tl_home = _tl_home()
    return tl_home / "cache" if tl_home else _user_folder(user_cache_path)


def _tl_home() -> Path | None:
    """Return ``TL_HOME``, or ``None`` if it is not set."""
    if not (text := os.environ.get("TL_HOME")):
        return None
    folder = Path(os.path.expanduser(text))  # noqa: PTH111 - the method raises for an unknown user
    if folder.is_symlink() and not folder.exists():
        raise ResourceError(f"TL_HOME is {folder}, a link to nothing. Repair the link, or set TL_HOME to a folder.", folder)
    if folder.exists() and not folder.is_dir():
        raise ResourceError(f"TL_HOME is {folder}, which is not a folder. Set TL_HOME to a folder.", folder)
    return folder


def _user_folder(find: Callable[[str], Path]) -> Path:
    """Return a folder below the user's home; the numeric users of containers have none."""
    try:
        folder = find("automl_tl")
    except RuntimeError:  # of platformdirs; its older releases return a relative path
        folder = Path("~")
    if not folder.is_absolute():
        raise ResourceError("This user has no home folder. Set TL_HOME to a folder for the registry and the cache.")
    return folder


@cache
def usable_cache(folder: Path) -> Path:
    """Return ``folder``, or a temporary folder of this process if nothing can be written or locked there, with a warning.

    Raises:
        ResourceError: there is no usable temporary folder either.
    """
    from automl_tl_registry.storage import check_writable  # imports pydantic and sqlite3, which `tl --help` does without

    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder)
    except (OSError, StorageError) as error:
        reason = getattr(error, "why", None) or getattr(error, "strerror", None) or error
        _log.warning("the cache %s cannot be used (%s): results are computed again. TL_HOME moves it.", folder, reason)
    else:
        return folder
    temporary = Path(mkdtemp(prefix="tl-cache-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Make a temporary folder and remove it at the end.

    Windows removes no file that is still open or mapped into memory; what is left is removed when the process ends.

    Args:
        prefix: of its name.
    """
    folder = Path(mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            atexit.register(shutil.rmtree, folder, ignore_errors=True)


def write_whole(file: Path, content: bytes) -> None:
    """Write a file completely or not at all; after a power failure it has its content or is missing.

    Args:
        file: to write; its folder is created if missing.
        content: of the file.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{os.urandom(16).hex()}")
    try:
        with draft.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def absolute(path: str | Path) -> str:
    """Return a path that means the same in another process; a URL as it is."""
    return str(path) if "://" in str(path) else str(Path(path).absolute())


class CacheUse(NamedTuple):
    """Number of entries and MiB of one kind."""

    kind: str
    num_entries: int
    size_mib: float


class _Entry(NamedTuple):
    kind: str
    path: Path
    num_bytes: int
    used_s: float


def cache_use(folder: Path) -> tuple[CacheUse, ...]:
    """Measure the cache at ``folder`` by kind; the kind ``images`` is the database of image facts."""
    entries = list(_entries(folder))
    sizes_of = {kind: [entry.num_bytes for entry in entries if entry.kind == kind] for kind in KINDS}
    sizes_of["images"] = [path.stat().st_size for path in folder.glob("images.sqlite*")]
    return tuple(CacheUse(kind, len(sizes), round(sum(sizes) / 2**20, 3)) for kind, sizes in sizes_of.items() if sizes)


def read_limit(folder: Path) -> float:
    """Return the size limit of the cache at ``folder`` in MiB; the default if its file is missing or damaged."""
    try:
        limit_mib = float(json.loads((folder / LIMIT_FILE).read_bytes())["limit_mib"])
    except (OSError, ValueError, TypeError, KeyError):
        return DEFAULT_LIMIT_MIB
    return limit_mib if limit_mib > 0 else DEFAULT_LIMIT_MIB


def set_limit(folder: Path, limit_mib: float) -> None:
    """Save the size limit of a cache.

    Args:
        folder: of the cache; created if missing.
        limit_mib: more than 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LIMIT_FILE).write_text(json.dumps({"limit_mib": limit_mib}), encoding="utf-8")


def trim_cache(folder: Path, *, now_s: float | None = None) -> float:
    """Remove the least recently used entries until a cache is within its limit, and return the MiB that were removed.

    Args:
        folder: of the cache.
        now_s: Unix time; by default the clock's.
    """
    entries = sorted(_entries(folder), key=lambda entry: entry.used_s)
    excess = sum(entry.num_bytes for entry in entries) - read_limit(folder) * 2**20
    in_use_since_s = (time.time() if now_s is None else now_s) - IN_USE_S
    removed = 0
    for entry in entries:
        if excess - removed <= 0 or entry.used_s > in_use_since_s:
            break
        removed += entry.num_bytes if _remove(entry.path) else 0
    return removed / 2**20


def clear_cache(folder: Path) -> float:
    """Remove every entry, in use or not, and return the MiB that were removed; Windows keeps what another process has open."""
    before_mib = sum(use.size_mib for use in cache_use(folder))
    for path in (*(entry.path for entry in _entries(folder)), *folder.glob("images.sqlite*")):
        _remove(path)
    return before_mib - sum(use.size_mib for use in cache_use(folder))


def _entries(folder: Path) -> Iterator[_Entry]:
    for kind in KINDS:
        for path in sorted((folder / kind).iterdir()) if (folder / kind).is_dir() else ():
            try:
                files = [path, *path.rglob("*")]
                stats = [file.stat() for file in files]
            except OSError:  # another process has just removed it
                continue
            sizes = (stat.st_size for file, stat in zip(files, stats, strict=True) if not file.is_dir())
            yield _Entry(kind, path, sum(sizes), max(stat.st_mtime for stat in stats))


def _remove(path: Path) -> bool:
    """Remove a file, or rename a folder before removing it, so that no process finds half an entry; return whether it could."""
    try:
        if path.is_dir():
            shutil.rmtree(path.rename(path.with_name(f".gone-{path.name}")), ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
