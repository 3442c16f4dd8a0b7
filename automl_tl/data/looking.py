"""One look at one file: its bytes, their digest, and what they are. What the workers of the scan do."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

from automl_tl.data.decoding import UndecodableError
from automl_tl.data.facts_cache import FactsCache
from automl_tl.data.measuring import measure
from automl_tl.data.sources.source import Source

__all__ = ["Look", "look"]

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


def look(source: Source, path: str, cache: FactsCache | None) -> Look:
    """Reads and measures one file; never raises because of what the file is."""
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
        return Look(path, digest, measure(data))
    except UndecodableError as error:
        return Look(path, digest, reason=error.reason, detail=error.detail)
