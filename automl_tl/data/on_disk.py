"""What grows with the number of images lies on disk: a temporary database, and rows of numbers in a temporary file.

The files have no names, so that they are gone with their owner, even after kill -9. Small ones never leave memory. Nothing is
mapped: mapped pages would count as memory of this process.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import Any, Final, final
from weakref import finalize

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["DiskArray", "TemporaryDatabase"]

LASTING: Final = Path("/var/tmp")  # where SQLite looks first as well: /tmp is memory on some systems
PAGE_BYTES: Final = 16384  # a row with a thumbnail in it fills a third of a smaller page, and is kept apart
CACHE_KIB: Final = 8192  # of a database that may be in memory


@final
class TemporaryDatabase:
    """An SQLite database that nobody else sees. Only what is read and written at the moment is in memory."""

    def __init__(self, schema: str) -> None:
        # An empty name is SQLite's for a file that is deleted as soon as it is open.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        finalize(self, self._connection.close)
        for setting in (f"page_size = {PAGE_BYTES}", f"cache_size = -{CACHE_KIB}", "journal_mode = OFF", "temp_store = FILE"):
            self._connection.execute(f"PRAGMA {setting}")
        self._connection.executescript(schema)
        self._connection.execute("BEGIN")  # without an end: a transaction for every row takes twice the time

    def ask(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Rows of the answer, one after the other."""
        yield from self._connection.execute(query, values)  # a generator, so that the database lives as long as the answer

    def run(self, statement: str) -> None:
        """Does what ``statement`` says."""
        self._connection.execute(statement)

    def add(self, query: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Does what ``query`` says with each of ``rows``, as they come."""
        self._connection.executemany(query, rows)

    def define(self, name: str, function: Any) -> None:  # noqa: ANN401 - of one text, to whatever SQLite can hold
        """Makes ``function`` known to queries."""
        self._connection.create_function(name, 1, function, deterministic=True)


@final
class DiskArray:
    """Rows of numbers ``(N, ...)``: written once, block by block, then read in part. Many threads may read.

    Args:
        row: type of a row, such as ``(np.float32, 64)``.
        blocks: rows, one block below the other.
    """

    def __init__(self, row: DTypeLike, blocks: Iterable[NDArray[Any]]) -> None:
        self._row = np.dtype(row)
        self._file = TemporaryFile(buffering=0, dir=_place())  # noqa: SIM115 - open as long as this lives
        finalize(self, self._file.close)
        self._lock = Lock()
        for block in blocks:
            left = np.ascontiguousarray(block).ravel().view(np.uint8)
            while left.size:  # a disk that is getting full may take a part
                left = left[self._file.write(left.data) :]
        self._length = self._file.tell() // self._row.itemsize

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Successive rows ``(M, ...)``; the step of the slice doesn't count."""
        start, stop, _ = rows.indices(self._length)
        return self._rows(self._read(start, max(stop - start, 0)))

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """The rows with these numbers, in the shape of ``rows``."""
        found = self._rows(b"".join(self._read(at, 1) for at in rows.ravel().tolist()))
        return found.reshape(*rows.shape, *self._row.shape)

    def blocks(self, length: int) -> Iterator[NDArray[Any]]:
        """All rows, ``length`` at a time."""
        return (self[start : start + length] for start in range(0, self._length, length))

    def _read(self, start: int, number: int) -> bytes:
        size = self._row.itemsize
        with self._lock:
            self._file.seek(start * size)
            return self._file.read(number * size)

    def _rows(self, data: bytes) -> NDArray[Any]:
        return np.frombuffer(data, dtype=self._row)


def _place() -> Path | None:
    return LASTING if "TMPDIR" not in os.environ and os.access(LASTING, os.W_OK) else None
