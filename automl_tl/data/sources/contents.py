"""What lies where in a large file: on disk, for of a million images the places alone would fill the memory."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from tempfile import mkstemp
from typing import Final, final
from weakref import finalize

__all__ = ["Contents", "temporary_file"]

SCHEMA: Final = "CREATE TABLE places (path PRIMARY KEY, first_byte, num_bytes) WITHOUT ROWID"


def temporary_file(owner: object, suffix: str) -> Path:
    """A new file that goes with ``owner``, in the process that made it."""
    descriptor, name = mkstemp(prefix="automl_tl_", suffix=suffix)
    os.close(descriptor)
    finalize(owner, _remove, Path(name), os.getpid())
    return Path(name)


@final
class Contents:
    """Offset and size in bytes by path, in a temporary database that goes with the process that made it.

    Picklable: other processes read the same database as long as its maker lives. Many threads may read.
    """

    def __init__(self) -> None:
        self._file = temporary_file(self, ".contents")
        self._opened: tuple[int, sqlite3.Connection] | None = None  # by which process
        self._connection().execute("PRAGMA journal_mode = OFF")
        self._connection().execute("PRAGMA synchronous = OFF")
        self._connection().execute(SCHEMA)

    def add(self, path: str, offset: int, num_bytes: int) -> None:
        """Adds the place of ``path``, which must be new."""
        self._connection().execute("INSERT INTO places VALUES (?, ?, ?)", (path, offset, num_bytes))

    def place(self, path: str) -> tuple[int, int]:
        """Offset and size of ``path``.

        Raises:
            KeyError: nothing is known of it.
        """
        query = "SELECT first_byte, num_bytes FROM places WHERE path = ?"
        for offset, num_bytes in self._connection().execute(query, (path,)):
            return offset, num_bytes
        raise KeyError(path)

    def __contains__(self, path: str) -> bool:
        return bool(self._connection().execute("SELECT 1 FROM places WHERE path = ?", (path,)).fetchall())

    def _connection(self) -> sqlite3.Connection:
        if self._opened is None or self._opened[0] != os.getpid():  # SQLite must not be used across forks
            connection = sqlite3.connect(self._file, check_same_thread=False)
            finalize(self, connection.close)
            self._opened = os.getpid(), connection
        return self._opened[1]

    def __getstate__(self) -> dict[str, object]:
        """Without the connection; what was added until now can be read by others."""
        self._connection().commit()
        return {**self.__dict__, "_opened": None}


def _remove(file: Path, maker: int) -> None:
    if os.getpid() == maker:  # not in a fork
        file.unlink(missing_ok=True)
