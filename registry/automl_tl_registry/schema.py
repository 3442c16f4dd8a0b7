"""The tables, as a list of migrations: ``MIGRATIONS[n]`` turns schema ``n`` into ``n + 1``; never edit one that was released.

``versions``, ``aliases`` and ``tags`` are what the events add up to, kept so that questions are quick; ``verify`` replays the
events and compares. ``drafts`` are publications in progress. ``generation`` counts write transactions (see ``database``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

__all__ = ["APPEND_ONLY", "APPLICATION_ID", "MIGRATIONS", "migrate", "schema_of"]

APPLICATION_ID: Final = 0x746C7267  # "tlrg"

APPEND_ONLY: Final = """
CREATE TRIGGER events_never_change BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_never_leave BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
"""

_FIRST: Final = f"""
PRAGMA application_id = {APPLICATION_ID};
CREATE TABLE generation (number INTEGER NOT NULL);
INSERT INTO generation VALUES (0);
CREATE TABLE models (name TEXT PRIMARY KEY, last_version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE versions (
  name TEXT NOT NULL REFERENCES models, version INTEGER NOT NULL, seq INTEGER NOT NULL UNIQUE,
  manifest_digest TEXT NOT NULL, origin TEXT, accuracy REAL NOT NULL, latency_ms REAL, size_bytes INTEGER NOT NULL,
  PRIMARY KEY (name, version)
) WITHOUT ROWID;
CREATE INDEX versions_by_manifest ON versions (manifest_digest);
CREATE INDEX versions_by_origin ON versions (origin);
CREATE TABLE manifests (digest TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE version_blobs (
  name TEXT NOT NULL, version INTEGER NOT NULL, role TEXT NOT NULL, digest TEXT NOT NULL, size_bytes INTEGER NOT NULL,
  PRIMARY KEY (name, version, role), FOREIGN KEY (name, version) REFERENCES versions ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX version_blobs_by_digest ON version_blobs (digest);
CREATE TABLE aliases (
  name TEXT NOT NULL, alias TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (name, alias),
  FOREIGN KEY (name, version) REFERENCES versions
) WITHOUT ROWID;
CREATE TABLE tags (
  name TEXT NOT NULL, version INTEGER NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (name, version, tag),
  FOREIGN KEY (name, version) REFERENCES versions ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL, verb TEXT NOT NULL, name TEXT, version INTEGER, alias TEXT,
  detail TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL
);
CREATE INDEX events_by_name ON events (name, seq);
CREATE INDEX events_by_alias ON events (name, alias, seq) WHERE alias IS NOT NULL;
CREATE TABLE drafts (id TEXT PRIMARY KEY, name TEXT NOT NULL, started_at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE draft_blobs (
  draft TEXT NOT NULL REFERENCES drafts ON DELETE CASCADE, digest TEXT NOT NULL, PRIMARY KEY (draft, digest)
) WITHOUT ROWID;
"""

MIGRATIONS: Final = (_FIRST + APPEND_ONLY,)


def schema_of(connection: sqlite3.Connection) -> int:
    """Number of migrations that the database has seen."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the database to the newest schema, inside the caller's transaction."""
    for number in range(schema_of(connection), len(migrations)):
        for statement in _statements(migrations[number]):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number + 1}")


def _statements(script: str) -> list[str]:
    """Statements of a script; ``executescript`` would commit the transaction before the first."""
    found, pending = [], ""
    for piece in script.split(";"):
        pending += piece + ";"
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    return [statement for statement in found if statement != ";"]
