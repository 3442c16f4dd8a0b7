"""A look at files: their bytes, their digests, and what they are. What the workers of the scan do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from automl_tl.data.decoding import UndecodableError
from automl_tl.data.facts_cache import FactsCache
from automl_tl.data.measuring import Seen, describe, see
from automl_tl.data.sources.source import Source

__all__ = ["Look", "look_at"]

PASSING = frozenset({"missing_file", "unreadable", "needs_plugin"})
"""Reasons that may be gone next time, so that they are not kept."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at ``path``: facts, or a reason why there are none."""

    path: str
    digest: str = ""
    facts: dict[str, object] = field(default_factory=dict)
    reason: str | None = None
    detail: str = ""
    known: bool = False

    @property
    def lasting(self) -> bool:
        """Whether the same bytes will always give the same answer."""
        return bool(self.digest) and self.reason not in PASSING


def look_at(source: Source, paths: Sequence[str], cache: FactsCache | None) -> list[Look]:
    """Reads and measures a few files, in order; never raises because of what a file is."""
    looks = [_look(source, path, cache) for path in paths]
    new = [(at, look) for at, look in enumerate(looks) if isinstance(look, _Pending)]
    for (at, look), facts in zip(new, describe([look.seen for _, look in new]), strict=True):
        looks[at] = Look(look.path, look.digest, facts)
    return [look for look in looks if isinstance(look, Look)]


@dataclass(frozen=True, slots=True)
class _Pending:
    """A file whose picture is still to be described."""

    path: str
    digest: str
    seen: Seen


def _look(source: Source, path: str, cache: FactsCache | None) -> Look | _Pending:
    try:
        data = source.read(path)
    except FileNotFoundError:
        return Look(path, reason="missing_file", detail="there is no such file")
    except OSError as error:
        return Look(path, reason="unreadable", detail=error.strerror or str(error))
    digest = sha256(data).hexdigest()
    known = cache.find(digest) if cache else None
    if known:
        return Look(path, digest, known.facts, known.reason, known.detail, known=True)
    try:
        return _Pending(path, digest, see(data))
    except UndecodableError as error:
        return Look(path, digest, reason=error.reason, detail=error.detail)
