"""All that a source lists, before anything is looked at: what it leaves aside, what it rejects, and what is to be looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final, final

from automl_tl.data.on_disk import TemporaryDatabase
from automl_tl.data.sources.source import Entry, in_unicode
from automl_tl.values import RejectedFile

__all__ = ["Listing"]

SCHEMA: Final = """
CREATE TABLE listed (path, label, part, "group");
CREATE TABLE wanted (path PRIMARY KEY, label, part, "group") WITHOUT ROWID;
"""


@final
class Listing:
    """Entries of a source, sorted by path; those of images to look at lie on disk."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.num_files = 0
        self.ignored: Counter[str] = Counter()
        self.rejected: list[RejectedFile] = []
        self._database = TemporaryDatabase(SCHEMA)
        self._database.add("INSERT INTO listed VALUES (?, ?, ?, ?)", self._wanted(entries))
        self._database.run("INSERT INTO wanted SELECT * FROM listed ORDER BY path")  # much quicker than one by one, unsorted
        self._database.run("DROP TABLE listed")

    @property
    def num_wanted(self) -> int:
        """Number of images that are still to be looked at."""
        return int(next(self._database.ask("SELECT COUNT(*) FROM wanted"))[0])

    def pages(self, length: int) -> Iterator[list[Entry]]:
        """Images that are still to be looked at, ``length`` at a time."""
        last = ""
        while rows := list(self._database.ask("SELECT * FROM wanted WHERE path > ? ORDER BY path LIMIT ?", last, length)):
            yield [Entry(*row) for row in rows]
            last = rows[-1][0]

    def done(self, paths: Iterable[str]) -> None:
        """Images with these paths need no look any more."""
        self._database.add("DELETE FROM wanted WHERE path = ?", ((path,) for path in paths))

    def _wanted(self, entries: Iterable[Entry]) -> Iterator[tuple[object, ...]]:
        for entry in map(_writable, entries):
            self.num_files += 1
            if entry.ignored:
                self.ignored[entry.ignored] += 1
            if entry.rejected:
                row = RejectedFile(path=entry.path, label=entry.label, reason=entry.rejected, detail=entry.detail)
                self.rejected.append(row)
            elif entry.label is not None and not entry.ignored:
                yield entry.path, entry.label, entry.part, entry.group


def _writable(entry: Entry) -> Entry:
    """``entry``, rejected if one of its texts is no valid Unicode, as names in an archive may be: nothing could write it."""
    try:
        f"{entry.path}{entry.label}{entry.group}".encode()
    except UnicodeEncodeError:
        detail = entry.detail or "its name, label or group is no valid UTF-8; rename it"
        reason = None if entry.ignored else entry.rejected or "name_not_unicode"
        return replace(entry, path=in_unicode(entry.path), label=None, group=None, rejected=reason, detail=detail)
    return entry
