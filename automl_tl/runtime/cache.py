"""The cache on disk: how much is in it, and how it stays within its limit.

Everything in it can be computed again. What goes first is what was used longest ago, in whole entries: a store of activations,
an engine, a checkpoint. An entry used within the last hour stays, as another process may be at it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from automl_tl.values import Value

__all__ = ["CacheUse", "clear_cache", "read_limit", "set_limit", "trim_cache", "use_of"]

KINDS: Final = ("activations", "engines", "runs", "speed")
IN_USE_S: Final = 3600.0
LIMIT_FILE: Final = "limit.json"


class CacheUse(Value):
    """How much of one kind is in the cache."""

    kind: str
    num_entries: int
    size_mib: float


class _Limit(Value):
    """What may be in the cache."""

    limit_mib: float = Field(default=10 * 1024.0, gt=0)


@dataclass(frozen=True)
class _Entry:
    kind: str
    path: Path
    num_bytes: int
    used_s: float


def use_of(folder: Path) -> tuple[CacheUse, ...]:
    """What is in the cache at ``folder``, by kind; decoded facts about images are the kind ``images``."""
    entries = list(_entries(folder))
    uses = [(kind, [entry.num_bytes for entry in entries if entry.kind == kind]) for kind in KINDS]
    uses.append(("images", [path.stat().st_size for path in folder.glob("images.sqlite*")]))
    return tuple(
        CacheUse(kind=kind, num_entries=len(sizes), size_mib=round(sum(sizes) / 2**20, 3)) for kind, sizes in uses if sizes
    )


def read_limit(folder: Path) -> float:
    """MiB that may be in the cache at ``folder``."""
    try:
        return _Limit.model_validate_json((folder / LIMIT_FILE).read_bytes()).limit_mib
    except (OSError, ValidationError):
        return _Limit().limit_mib


def set_limit(folder: Path, limit_mib: float) -> None:
    """Keep ``limit_mib`` as the limit of the cache at ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LIMIT_FILE).write_text(_Limit(limit_mib=limit_mib).model_dump_json())


def trim_cache(folder: Path, *, now_s: float | None = None) -> float:
    """Remove what was used longest ago until the cache at ``folder`` is within its limit; gives the MiB that went."""
    entries = sorted(_entries(folder), key=lambda entry: entry.used_s)
    too_much = sum(entry.num_bytes for entry in entries) - read_limit(folder) * 2**20
    quiet_since_s = (time.time() if now_s is None else now_s) - IN_USE_S
    gone = 0
    for entry in entries:
        if too_much - gone <= 0 or entry.used_s > quiet_since_s:
            break
        _remove(entry.path)
        gone += entry.num_bytes
    return gone / 2**20


def clear_cache(folder: Path) -> float:
    """Remove all that can be computed again, in use or not; gives the MiB that went."""
    gone = sum(use.size_mib for use in use_of(folder))
    for path in (*(entry.path for entry in _entries(folder)), *folder.glob("images.sqlite*")):
        _remove(path)
    return gone


def _entries(folder: Path) -> Iterator[_Entry]:
    for kind in KINDS:
        for path in sorted((folder / kind).iterdir()) if (folder / kind).is_dir() else ():
            try:
                files = [path, *path.rglob("*")]
                stats = [file.stat() for file in files]
            except OSError:  # somebody else has just removed it
                continue
            sizes = (stat.st_size for file, stat in zip(files, stats, strict=True) if not file.is_dir())
            yield _Entry(kind, path, sum(sizes), max(stat.st_mtime for stat in stats))


def _remove(path: Path) -> None:
    """Out of sight first, so that nobody finds half an entry."""
    if path.is_dir():
        try:
            path = path.rename(path.with_name(f".gone-{path.name}"))
        except OSError:
            return
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
