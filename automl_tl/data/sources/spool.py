"""Bytes of many images in one temporary file, for sources that can't be read out of order."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import mkstemp
from typing import final
from weakref import finalize

from automl_tl.data.sources.contents import Contents

__all__ = ["Spool"]


@final
class Spool:
    """A temporary file that is filled once and then read from anywhere; it goes with the process that made it.

    Picklable: other processes read the same file as long as its maker lives.
    """

    def __init__(self) -> None:
        descriptor, name = mkstemp(prefix="automl_tl_", suffix=".spool")
        os.close(descriptor)
        self.file = Path(name)
        self._contents = Contents()
        finalize(self, _remove, self.file, os.getpid())

    def put(self, path: str, data: bytes) -> int:
        """Adds the bytes of ``path``, which must be new; where they begin in the file."""
        with self.file.open("ab") as file:
            offset = file.tell()
            file.write(data)
        self._contents.add(path, offset, len(data))
        return offset

    def read(self, path: str) -> bytes:
        """The bytes of ``path``."""
        offset, size = self._contents.place(path)
        with self.file.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def __contains__(self, path: str) -> bool:
        return path in self._contents


def _remove(file: Path, maker: int) -> None:
    if os.getpid() == maker:  # not in a fork
        file.unlink(missing_ok=True)
