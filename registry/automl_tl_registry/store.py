"""A registry folder: the database ``registry.sqlite``, the blobs, and ``events.jsonl``, the mirror of the event log.

**Writing** is one ``BEGIN IMMEDIATE`` transaction in SQLite's rollback-journal mode. ``synchronous = EXTRA`` also fsyncs the
folder after the journal is removed: without it, a power failure could undo a commit that was reported.

**Reading** uses a read-only connection, which creates no files and works in a folder that is not writable. After a writer died
in the middle of a commit, the next connection undoes that commit.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Final, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from automl_tl_registry.errors import (
    DamagedDatabaseError,
    DiskFullError,
    NoLocksError,
    NotWritableError,
    RegistryError,
    StorageError,
)
from automl_tl_registry.journal import load_events
from automl_tl_registry.storage import MIRROR_FILE, BlobStore, Disk, check_locks, file_lock
from automl_tl_registry.values import Event, VersionView, checked_text

T = TypeVar("T")
FIRST_WAIT_S: Final = 0.5  # before looking whether the file system has locks at all
BUSY_TIMEOUT_S: Final = 60.0  # a transaction takes milliseconds; after a minute another process hangs
WRITE_ERRORS: Final = tuple(f"SQLITE_IOERR_{step}" for step in ("WRITE", "FSYNC", "DIR_FSYNC", "TRUNCATE", "DELETE"))

# ``versions``, ``aliases`` and ``tags`` hold what the events add up to, for fast queries; ``verify`` replays the events and
# compares. ``drafts`` are publications in progress.

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x746C7267  # "tlrg"

APPEND_ONLY: Final = (
    "CREATE TRIGGER events_never_change BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
    "CREATE TRIGGER events_never_leave BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
)

_TABLES: Final = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
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


def _create_schema(connection: sqlite3.Connection) -> None:
    """Create the tables; statement by statement, because ``executescript`` would commit the transaction first."""
    for statement in (*_TABLES.split(";"), *APPEND_ONLY):
        connection.execute(statement)


def memory_database() -> sqlite3.Connection:
    """Return a connection to an empty database in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    _create_schema(connection)
    return connection


def sqlite_uri(path: PurePath) -> str:
    """Return the URI of an absolute path, for SQLite.

    ``Path.as_uri`` makes the server of a Windows network folder the authority of the URI, which SQLite rejects.
    """
    slashes = path.as_posix()
    return f"file://{'' if slashes.startswith('/') else '/'}{quote(slashes, safe='/:', errors='surrogateescape')}"


def _is_about_locks(error: sqlite3.DatabaseError) -> bool:
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")) or name.endswith("LOCK")


@dataclass(frozen=True)
class Database:
    """The database at ``path``; a missing file reads as an empty registry."""

    path: Path
    disk: Disk
    timeout_s: float = BUSY_TIMEOUT_S

    def ensure(self) -> None:
        """Create the database if it is missing."""
        if self.path.exists():
            return
        self.disk.make_folder(self.path.parent)
        draft = self.path.with_name(f"{self.path.name}.new-{os.urandom(8).hex()}")
        try:
            # One transaction, so that no other file is left behind.
            with self._explained(), closing(sqlite3.connect(draft, timeout=FIRST_WAIT_S, isolation_level=None)) as connection:
                self.disk.reached(f"before write {draft.name}")
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute("BEGIN IMMEDIATE")
                _create_schema(connection)
                self.disk.commit(connection)
            self.disk.create(draft, self.path)
        finally:
            draft.unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open a write transaction; commit it when the block ends, roll it back when the block raises."""
        with self._explained(), closing(self._open("rw")) as connection:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA foreign_keys = ON")
            try:
                self._begin(connection, "BEGIN IMMEDIATE")
                # A write before all else: where nothing can be written, this fails before any file is touched.
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                yield connection
                self.disk.commit(connection)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _open(self, mode: str) -> sqlite3.Connection:
        address = f"{sqlite_uri(self.path.resolve())}?mode={mode}"
        first_wait_s = min(self.timeout_s, FIRST_WAIT_S)
        connection = sqlite3.connect(address, uri=True, timeout=first_wait_s, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return connection

    def _begin(self, connection: sqlite3.Connection, statement: str) -> None:
        """Start a transaction; if the database stays locked, find out whether there are locks at all before waiting longer."""
        try:
            connection.execute(statement)
            self._check_schema(connection)
        except sqlite3.OperationalError as error:
            if not _is_about_locks(error):
                raise
            check_locks(self.path.parent)
            connection.execute(f"PRAGMA busy_timeout = {round(1000 * self.timeout_s)}")
            if not connection.in_transaction:
                connection.execute(statement)
            self._check_schema(connection)
        else:
            connection.execute(f"PRAGMA busy_timeout = {round(1000 * self.timeout_s)}")

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if not version:
            raise DamagedDatabaseError(self.path, "it contains no registry")
        if version > SCHEMA_VERSION:
            known = f"this release supports up to {SCHEMA_VERSION}"
            raise StorageError(f"{self.path} has schema {version}; {known}. Nothing was changed; upgrade automl_tl.")

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``query`` on one consistent state and return its result."""
        with self._explained():
            if not self.path.exists():
                with closing(memory_database()) as connection:
                    return query(connection)
            try:
                return self._read_with("ro", query)
            except NoLocksError:  # then nothing writes either, except from a machine where there are locks
                return self._read_with("ro&nolock=1", query)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname != "SQLITE_READONLY_ROLLBACK":
                    raise
            # A writer died in the middle of a commit; SQLite undoes the commit, for which it has to write.
            return self._read_with("rw", query)

    def _read_with(self, mode: str, query: Callable[[sqlite3.Connection], T]) -> T:
        with closing(self._open(mode)) as connection:
            self._begin(connection, "BEGIN")
            return query(connection)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise self._explanation(error) from error

    def _explanation(self, error: sqlite3.DatabaseError) -> RegistryError | sqlite3.DatabaseError:
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        if name.startswith("SQLITE_FULL"):
            return DiskFullError(self.path, str(error))
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            return NotWritableError(self.path, str(error))
        if _is_about_locks(error):
            check_locks(self.path.parent)
            why = f"Another process has held {self.path} for more than {self.timeout_s:.0f} s"
            return StorageError(f"{why}. Nothing was changed; try again.")
        if name in WRITE_ERRORS:  # SQLite's only word for a quota
            causes = "The disk quota, a limit on file sizes (`ulimit -f`) or the disk itself may be the cause"
            return StorageError(f"{self.path} cannot be written ({error}). {causes}. Nothing was changed.")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR", "SQLITE_ERROR")):
            return DamagedDatabaseError(self.path, str(error))
        return error


_log = logging.getLogger(__name__)
logging.getLogger("automl_tl_registry").addHandler(logging.NullHandler())  # otherwise Python would print warnings


@dataclass(frozen=True)
class Mirror:
    """The mirror of the event log, at ``path``."""

    path: Path
    disk: Disk

    def follow(self, database: Database) -> None:
        """Append the missing events. A failure is logged, not raised, because the commit has already happened."""
        try:
            with file_lock(self.path.with_suffix(".lock")):
                seq, end = self._last()
                events = database.read(lambda connection: list(load_events(connection, "seq > ?", [seq])))
                if events:
                    self.disk.append(
                        self.path, b"".join(event.model_dump_json().encode() + b"\n" for event in events), at_byte=end
                    )
        except (OSError, ValueError, RegistryError) as error:
            _log.warning("%s is behind the database; the next change completes it: %s", self.path, error)

    def _last(self) -> tuple[int, int]:
        """Return the number of the last complete event and the offset of the byte after it."""
        content = self.path.read_bytes() if self.path.exists() else b""
        end = content.rfind(b"\n") + 1
        start = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
        return (Event.model_validate_json(content[start:end]).seq, end) if end else (0, 0)

    def events(self) -> Iterator[Event]:
        """Yield the events of the file, oldest first, up to the first unreadable line."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            for line in stream:
                try:
                    yield Event.model_validate_json(line)
                except ValidationError:
                    return

    def num_lines(self) -> int:
        """Return the number of complete lines, valid or not."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as stream:
            return sum(line.endswith(b"\n") for line in stream)


Clock = Callable[[], datetime]
PredictionCheck = Callable[[VersionView], object]  # raises when the saved files do not reproduce the reference predictions


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Store:
    """A registry folder and access to its parts. Creating a Store touches no file."""

    root: Path
    disk: Disk
    clock: Clock
    check_predictions: PredictionCheck | None = None

    @property
    def blobs(self) -> BlobStore:
        """The content-addressed files."""
        return BlobStore(self.root / "blobs", self.disk)

    @property
    def database(self) -> Database:
        """Names, versions, aliases, tags, events."""
        return Database(self.root / "registry.sqlite", self.disk)

    @property
    def mirror(self) -> Mirror:
        """The mirror of the event log."""
        return Mirror(self.root / MIRROR_FILE, self.disk)

    @property
    def staging(self) -> Path:
        """Folder of publications in progress."""
        return self.root / "staging"

    @property
    def signatures(self) -> Path:
        """Folder of the signatures of versions."""
        return self.root / "signatures"

    def check_not_orphaned(self) -> None:
        """Raise DamagedDatabaseError if blobs or events exist but the database is missing."""
        left = self.mirror.path.exists() or next(self.blobs.all(), None) is not None
        if left and not self.database.path.exists():  # checked last: a first publication creates it before anything else
            raise DamagedDatabaseError(self.database.path, "it is missing although blobs or events exist")

    def actor(self, name: str | None) -> str:
        """Return ``name`` if it is set and valid; otherwise the current user and host."""
        if name is not None:
            return checked_text(name, what="an actor")
        import getpass
        import socket

        try:
            user = getpass.getuser()
        except (OSError, KeyError, ImportError):  # user ids without a name, as in some containers; Windows without USERNAME
            user = "unknown"
        return f"{user}@{socket.gethostname()}"
