"""A look at files: their bytes, their digests, and what they are. What the workers of the scan do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from hashlib import sha256
from typing import Final, NamedTuple

from automl_tl.data.decoding import UndecodableError
from automl_tl.data.facts_cache import FactsCache, KnownFacts
from automl_tl.data.measuring import measure
from automl_tl.data.sources.source import Source

__all__ = ["Look", "look_at"]

NONE: Final[Mapping[str, object]] = {}

PASSING: Final = frozenset({"missing_file", "unreadable", "needs_plugin"})
"""Reasons that may be gone next time, so that they are not kept."""


class Look(NamedTuple):
    """What was found at ``path``: facts, or a reason why there are none. A tuple, for a million of them are handed over."""

    path: str
    digest: str = ""
    facts: Mapping[str, object] = NONE
    reason: str | None = None
    detail: str = ""
    known: bool = False
    stamp: str | None = None  # of before reading: a later change will show

    @property
    def lasting(self) -> bool:
        """Whether the same bytes will always give the same answer."""
        return bool(self.digest) and self.reason not in PASSING


def look_at(source: Source, paths: Sequence[str], cache: FactsCache | None) -> list[Look]:
    """Reads and measures a few files, in order; never raises because of what a file is."""
    with cache.finding() if cache else nullcontext() as find:
        return [_look(source, path, find) for path in paths]


def _look(source: Source, path: str, find: Callable[[str], KnownFacts | None] | None) -> Look:
    stamp = source.stamp(path) if find else None
    try:
        data = source.read(path)
    except FileNotFoundError:
        return Look(path, reason="missing_file", detail="there is no such file")
    except OSError as error:
        return Look(path, reason="unreadable", detail=error.strerror or str(error))
    digest = sha256(data).hexdigest()
    known = find(digest) if find else None
    if known:
        return Look(path, digest, known.facts, known.reason, known.detail, known=True, stamp=stamp)
    try:
        return Look(path, digest, measure(data), stamp=stamp)
    except UndecodableError as error:
        return Look(path, digest, reason=error.reason, detail=error.detail, stamp=stamp)
