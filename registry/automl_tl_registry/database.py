"""Reading and writing ``registry.sqlite``.

**Writing** is one ``BEGIN IMMEDIATE`` transaction in WAL mode with full fsync; writers queue on SQLite's own lock. The file is
made whole under another name and linked into place, so it never exists half made. Every write raises ``generation``.

**Reading writes nothing**, and works where nothing can be written. A plain read-only connection to a WAL database makes
``-wal`` and ``-shm`` files, so:

1. No ``-wal`` file: no writer has it open. The database is opened as immutable: no locks, no files. A writer may
   come meanwhile, so the answer counts only if afterwards there is still no ``-wal`` and a fresh look finds the same
   ``generation`` (each write transaction raises it); otherwise it is read again.
2. A ``-wal`` file: a writer is there or has crashed. A read-only connection uses the files that are there.
3. That failing (a read-only folder, a ``-wal`` without ``-shm``): database and ``-wal`` are copied to a temporary folder and
   read there.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from automl_tl_registry.disk import Disk
from automl_tl_registry.errors import (
    BusyError,
    DamagedDatabaseError,
    DiskFullError,
    NewerSchemaError,
    NotWritableError,
    RegistryError,
)
from automl_tl_registry.schema import MIGRATIONS, migrate, schema_of

__all__ = ["BUSY_TIMEOUT_S", "Database"]

T = TypeVar("T")
BUSY_TIMEOUT_S: Final = 60.0  # a transaction takes milliseconds; a minute means that somebody is stuck
QUIET_ATTEMPTS: Final = 5  # after which a busy registry is read with locks


@dataclass(frozen=True)
class Database:
    """The file at ``path``, which need not exist: then it reads as empty."""

    path: Path
    disk: Disk
    migrations: Sequence[str] = MIGRATIONS
    timeout_s: float = BUSY_TIMEOUT_S

    # ------------------------------------------------------------------------------------------------------- writing

    def ensure(self) -> None:
        """Make the database if there is none."""
        if self.path.exists():
            return
        self.disk.make_folder(self.path.parent)
        draft = self.path.with_name(f"{self.path.name}.new-{os.urandom(8).hex()}")
        try:
            self.make(draft)
            self.disk.create(draft, self.path)
        finally:
            draft.unlink(missing_ok=True)

    def make(self, path: Path) -> None:
        """Write an empty database to ``path``; nothing is left beside it."""
        with self._explained(), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            self.disk.reached(f"before write {path.name}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection, self.migrations)
            self.disk.commit(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is committed when the block ends, rolled back when it raises."""
        with self._explained(), closing(self._open("rw")) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._check_schema(connection)
                migrate(connection, self.migrations)
                connection.execute("UPDATE generation SET number = number + 1")
                yield connection
                self.disk.commit(connection)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _open(self, mode: str, *, path: Path | None = None) -> sqlite3.Connection:
        address = f"{(path or self.path).resolve().as_uri()}?{mode if '=' in mode else f'mode={mode}'}"
        connection = sqlite3.connect(address, uri=True, timeout=self.timeout_s, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return connection

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        found = schema_of(connection)
        if not found:
            raise DamagedDatabaseError(self.path, "it holds no registry")
        if found > len(self.migrations):
            raise NewerSchemaError(self.path, found=found, known=len(self.migrations))

    # ------------------------------------------------------------------------------------------------------- reading

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """What ``query`` answers, from one consistent state. It may be called more than once."""
        with self._explained():
            if not self.path.exists():
                return self._read_empty(query)
            for _ in range(QUIET_ATTEMPTS):
                before = self._generation()
                if self._has_wal():  # asked after: a writer that ``before`` has seen a part of would still be there
                    return self._read_beside_writers(query)
                try:
                    answer = self._read_quietly(query)
                except (sqlite3.DatabaseError, RegistryError):  # a writer may have passed below us; if not, it is real
                    if self._is_unchanged_since(before):
                        raise
                else:
                    if self._is_unchanged_since(before):
                        return answer
            return self._read_beside_writers(query)

    def _generation(self) -> int | None:
        """Number of write transactions so far; ``None`` if unknown."""
        try:
            with closing(self._open("immutable=1&mode=ro")) as connection:
                return int(connection.execute("SELECT number FROM generation").fetchone()[0])
        except sqlite3.DatabaseError:
            return None

    def _is_unchanged_since(self, generation: int | None) -> bool:
        return not self._has_wal() and self._generation() == generation

    def _has_wal(self) -> bool:
        return self.path.with_name(f"{self.path.name}-wal").exists()

    def _read_empty(self, query: Callable[[sqlite3.Connection], T]) -> T:
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            migrate(connection, self.migrations)
            return query(connection)

    def _read_quietly(self, query: Callable[[sqlite3.Connection], T]) -> T:
        with closing(self._open("immutable=1&mode=ro")) as connection:
            return self._asked(connection, query)

    def _read_beside_writers(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with closing(self._open("ro")) as connection:
                connection.execute("BEGIN")
                return self._asked(connection, query)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname.split("_")[1] not in ("CANTOPEN", "READONLY", "IOERR"):
                raise
        import shutil
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(prefix="automl_tl_registry-") as folder:
            for _ in range(QUIET_ATTEMPTS):
                before = self._fingerprint()
                for name in (self.path.name, f"{self.path.name}-wal"):
                    if (source := self.path.with_name(name)).exists():
                        shutil.copyfile(source, Path(folder) / name)
                if self._fingerprint() == before:
                    break
            with closing(self._open("rw", path=Path(folder) / self.path.name)) as connection:
                return self._asked(connection, query)

    def _fingerprint(self) -> list[tuple[int, int]]:
        files = (path for path in (self.path, self.path.with_name(f"{self.path.name}-wal")) if path.exists())
        return [(found.st_size, found.st_mtime_ns) for found in (path.stat() for path in files)]

    def _asked(self, connection: sqlite3.Connection, query: Callable[[sqlite3.Connection], T]) -> T:
        self._check_schema(connection)
        if schema_of(connection) == len(self.migrations):
            return query(connection)
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:  # older: only a copy may be migrated here
            connection.backup(memory)
            memory.row_factory = sqlite3.Row
            migrate(memory, self.migrations)
            return query(memory)

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
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return BusyError(self.path, self.timeout_s)
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR", "SQLITE_ERROR")):
            return DamagedDatabaseError(self.path, str(error))
        return error
