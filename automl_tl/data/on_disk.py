"""Rows of numbers in a temporary file.

The files have no names, so that they are gone with their owner, even after kill -9. Small ones never leave memory. Nothing is
mapped: mapped pages would count as memory of this process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import Any, Final, final
from weakref import finalize

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["DiskArray"]

LASTING: Final = Path("/var/tmp")  # /tmp is memory on some systems


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
