"""Bytes of many images in one temporary file, for sources that can't be read out of order."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import mkstemp
from typing import final
from weakref import finalize

__all__ = ["Spool"]


@final
class Spool:
    """A temporary file that is filled once and then read from anywhere; deleted with the process that made it.

    Picklable: other processes read the same file as long as its maker lives.
    """

    def __init__(self) -> None:
        descriptor, name = mkstemp(prefix="automl_tl_", suffix=".spool")
        os.close(descriptor)
        self._file = Path(name)
        finalize(self, _remove, self._file, os.getpid())
        self._places: dict[str, tuple[int, int]] = {}  # path -> offset, size in bytes

    def put(self, path: str, data: bytes) -> None:
        """Add the bytes of ``path``, which must be new."""
        with self._file.open("ab") as file:
            self._places[path] = file.tell(), len(data)
            file.write(data)

    def read(self, path: str) -> bytes:
        """The bytes of ``path``."""
        offset, size = self._places[path]
        with self._file.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def __contains__(self, path: str) -> bool:
        return path in self._places


def _remove(file: Path, maker: int) -> None:
    if os.getpid() == maker:  # not in a fork
        file.unlink(missing_ok=True)
