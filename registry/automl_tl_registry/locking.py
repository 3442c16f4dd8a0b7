"""A lock on a file that the operating system lets go when its holder dies, however it dies.

That is what tells an abandoned draft from one in progress: process ids are reused and mean nothing in another container.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

__all__ = ["FileLock", "is_held"]

if os.name == "nt":
    import msvcrt

    def _lock(stream: IO[bytes], *, wait: bool) -> None:
        msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]

else:
    import fcntl

    def _lock(stream: IO[bytes], *, wait: bool) -> None:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


class FileLock:
    """Exclusive lock on ``path``, made if need be; held from the making of the object until ``release``."""

    def __init__(self, path: Path, *, wait: bool = True) -> None:
        """Take the lock.

        Raises:
            OSError: the file can't be opened, or another holds the lock and ``wait`` is false.
        """
        self._stream = path.open("ab")
        try:
            _lock(self._stream, wait=wait)
        except OSError:
            self._stream.close()
            raise

    def release(self) -> None:
        """Let go; fine if already done."""
        self._stream.close()

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock on ``path``; writes nothing."""
    try:
        with path.open("rb") as stream:
            _lock(stream, wait=False)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
