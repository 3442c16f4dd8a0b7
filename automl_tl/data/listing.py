"""All that a source lists, before anything is looked at: what it leaves aside, what it rejects, and what is to be looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from operator import attrgetter
from typing import final

from automl_tl.data.sources.source import Entry, in_unicode
from automl_tl.runtime.batches import batches
from automl_tl.values import RejectedFile

__all__ = ["Listing"]


@final
class Listing:
    """Entries of a source, sorted by path: ignored ones counted, rejected ones as rows, and the images still to read."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.num_files = 0
        self.ignored: Counter[str] = Counter()
        self.rejected: list[RejectedFile] = []
        self._waiting = {entry.path: entry for entry in sorted(self._images(entries), key=attrgetter("path"))}

    @property
    def num_wanted(self) -> int:
        """Number of images that are still to be read."""
        return len(self._waiting)

    def pages(self, length: int) -> Iterator[list[Entry]]:
        """Images that are still to be read, ``length`` at a time; ``done`` may be called meanwhile."""
        return batches(tuple(self._waiting.values()), length)

    def done(self, paths: Iterable[str]) -> None:
        """Remove images that need not be read any more."""
        for path in paths:
            del self._waiting[path]

    def _images(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in map(_writable, entries):
            self.num_files += 1
            if entry.ignored:
                self.ignored[entry.ignored] += 1
            if entry.rejected:
                row = RejectedFile(path=entry.path, label=entry.label, reason=entry.rejected, detail=entry.detail)
                self.rejected.append(row)
            elif entry.label is not None and not entry.ignored:
                yield entry


def _writable(entry: Entry) -> Entry:
    """``entry``, rejected if one of its texts is no valid Unicode, as names in an archive may be: nothing could write it."""
    try:
        f"{entry.path}{entry.label}{entry.group}".encode()
    except UnicodeEncodeError:
        detail = entry.detail or "its name, label or group is no valid UTF-8; rename it"
        reason = None if entry.ignored else entry.rejected or "name_not_unicode"
        return replace(entry, path=in_unicode(entry.path), label=None, group=None, rejected=reason, detail=detail)
    return entry
