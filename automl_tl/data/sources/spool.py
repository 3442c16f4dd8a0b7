"""Bytes of many images in one temporary file, for sources that can't be read out of order."""

from __future__ import annotations

from typing import final

from automl_tl.data.sources.contents import Contents, temporary_file

__all__ = ["Spool"]


@final
class Spool:
    """A temporary file that is filled once and then read from anywhere; it goes with the process that made it.

    Picklable: other processes read the same file as long as its maker lives.
    """

    def __init__(self) -> None:
        self.file = temporary_file(self, ".spool")
        self._contents = Contents()

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
