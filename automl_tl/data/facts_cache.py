"""Facts about images, kept between scans by the digest of their bytes, so that a second look decodes nothing.

One SQLite file that can be deleted at any time; several processes may use it at once. It also remembers which digest a
file had when its stamp (size, times, inode) was such, so that an unchanged file needs not even be read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    UNIQUE (digest, version)
);
CREATE TABLE IF NOT EXISTS stamps (
    place TEXT NOT NULL, path TEXT NOT NULL, stamp TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (place, path)
) WITHOUT ROWID;
"""
SELECT: Final = "SELECT digest, reason, detail, facts, thumbnail FROM facts"


@dataclass(frozen=True, slots=True)
class KnownFacts:
    """What is known about some bytes: facts, or a reason why they are no image."""

    digest: str
    facts: Mapping[str, object]
    reason: str | None
    detail: str


@final
class FactsCache:
    """The cache in ``folder``, created if missing. Picklable; every call opens the file again."""

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

    @contextmanager
    def finding(self) -> Iterator[Callable[[str], KnownFacts | None]]:
        """A function that says what is known about the bytes with a digest."""
        with self._open() as database:

            def find(digest: str) -> KnownFacts | None:
                row = database.execute(f"{SELECT} WHERE digest = ? AND version = ?", (digest, self._version)).fetchone()
                return _known(*row) if row else None

            yield find

    def find_all(self, digests: Iterable[str]) -> dict[str, KnownFacts]:
        """What is known, by digest."""
        with self.finding() as find:
            return {digest: known for digest in digests if (known := find(digest))}

    def keep(self, known: Iterable[KnownFacts]) -> None:
        """Remembers facts; what is there already stays."""
        rows = [(row.digest, self._version, row.reason, row.detail, *_packed(row.facts)) for row in known]
        with self._open() as database, database:
            database.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?, ?, ?, ?, ?)", rows)

    def stamped(self, place: str, paths: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Stamp and digest of those ``paths`` of ``place`` that were looked at; all must lie between the first and the last."""
        with self._open() as database:
            query = "SELECT path, stamp, digest FROM stamps WHERE place = ? AND path BETWEEN ? AND ?"
            return {path: (stamp, digest) for path, stamp, digest in database.execute(query, (place, paths[0], paths[-1]))}

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


def _known(digest: str, reason: str | None, detail: str, facts: str, thumbnail: bytes | None) -> KnownFacts:
    return KnownFacts(digest, _unpacked(facts, thumbnail), reason, detail)


def _unpacked(text: str, thumbnail: bytes | None) -> dict[str, object]:
    facts: dict[str, object] = json.loads(text)
    return {**facts, "thumbnail": thumbnail} if facts else {}
