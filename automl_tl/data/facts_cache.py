"""Facts about images, kept between scans by the digest of their bytes, so that a second look decodes nothing.

One SQLite file that can be deleted at any time; several processes may use it at once. It also remembers which digest a
file had when its stamp (size, times, inode) was such, so that an unchanged file needs not even be read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, final

import PIL

from automl_tl.data.measuring import MEASURE_VERSION

__all__ = ["FactsCache", "KnownFacts"]

FILE_NAME: Final = "images.sqlite"
WAIT_S: Final = 30.0
TABLES: Final = """
CREATE TABLE IF NOT EXISTS facts (
    digest TEXT NOT NULL, version TEXT NOT NULL, reason TEXT, detail TEXT NOT NULL, facts TEXT NOT NULL, thumbnail BLOB,
    PRIMARY KEY (digest, version)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stamps (
    place TEXT NOT NULL, path TEXT NOT NULL, stamp TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (place, path)
) WITHOUT ROWID;
"""
SELECT: Final = "SELECT digest, reason, detail, facts, thumbnail FROM facts"
AT_ONCE: Final = 500  # SQLite takes at most 999 parameters by default


@dataclass(frozen=True, slots=True)
class KnownFacts:
    """What is known about some bytes: facts, or a reason why they are no image."""

    digest: str
    facts: dict[str, object]
    reason: str | None
    detail: str


@final
class FactsCache:
    """The cache in ``folder``, which is made if need be. Picklable; every call opens the file anew.

    ``find`` and ``find_all`` see what was kept before this object was made.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE_NAME
        # Other decoders give other pixels, other code gives other facts.
        self._version = f"{MEASURE_VERSION} {PIL.__version__}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._prepare()
        except sqlite3.DatabaseError:  # damaged: it only holds what can be had again
            self._file.unlink()
            self._prepare()
        with self._open() as database:
            known = database.execute("SELECT digest FROM facts WHERE version = ?", (self._version,))
            self._digests = frozenset(digest for (digest,) in known)

    def find(self, digest: str) -> KnownFacts | None:
        """What is known about the bytes with this digest."""
        return self.find_all([digest]).get(digest) if digest in self._digests else None

    def find_all(self, digests: Sequence[str]) -> dict[str, KnownFacts]:
        """What is known, by digest."""
        found: dict[str, KnownFacts] = {}
        with self._open() as database:
            for start in range(0, len(digests), AT_ONCE):
                some = digests[start : start + AT_ONCE]
                query = f"{SELECT} WHERE version = ? AND digest IN ({', '.join('?' * len(some))})"
                for digest, reason, detail, facts, thumbnail in database.execute(query, (self._version, *some)):
                    found[digest] = KnownFacts(digest, _unpacked(facts, thumbnail), reason, detail)
        return found

    def keep(self, known: Iterable[KnownFacts]) -> None:
        """Remembers facts; what is there already stays."""
        rows = [(row.digest, self._version, row.reason, row.detail, *_packed(row.facts)) for row in known]
        with self._open() as database, database:
            database.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?, ?, ?, ?, ?)", rows)

    def stamped(self, place: str) -> dict[str, tuple[str, str]]:
        """Stamp and digest of every path of ``place`` that was looked at."""
        with self._open() as database:
            rows = database.execute("SELECT path, stamp, digest FROM stamps WHERE place = ?", (place,))
            return {path: (stamp, digest) for path, stamp, digest in rows}

    def stamp(self, place: str, stamps: Mapping[str, tuple[str, str]]) -> None:
        """Remembers stamp and digest by path."""
        rows = [(place, path, stamp, digest) for path, (stamp, digest) in stamps.items()]
        with self._open() as database, database:
            database.executemany("INSERT OR REPLACE INTO stamps VALUES (?, ?, ?, ?)", rows)

    def _prepare(self) -> None:
        with self._open() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(TABLES)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file, timeout=WAIT_S)) as database:
            database.execute("PRAGMA synchronous = OFF")  # what a crash loses is measured again
            yield database


def _packed(facts: Mapping[str, object]) -> tuple[str, object]:
    plain = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in facts.items()}
    thumbnail = plain.pop("thumbnail", None)
    return json.dumps(plain), thumbnail


def _unpacked(text: str, thumbnail: bytes | None) -> dict[str, object]:
    facts: dict[str, object] = json.loads(text)
    return {**facts, "thumbnail": thumbnail} if facts else {}
