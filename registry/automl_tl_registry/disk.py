"""Every change to the file system, and every commit, goes through a ``Disk``.

Two reasons: each step is durable (file fsync, rename, directory fsync) in one place, and tests can stop the process
between any two steps. ``reached(label)`` is called before and after each step; the real one does nothing.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from automl_tl_registry.errors import DiskFullError, NotWritableError

__all__ = ["CHUNK_BYTES", "Disk", "chunks_of", "file_lock", "is_locked"]

CHUNK_BYTES: Final = 1 << 20
LOCK_POLL_S: Final = 0.01  # a mirror is written in a few milliseconds
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN: Final = {errno.EACCES, errno.EPERM, errno.EROFS}


def chunks_of(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Bytes of the file, piece by piece."""
    with path.open("rb") as stream:
        while chunk := stream.read(chunk_bytes):
            yield chunk


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of a file, which is created if missing; wait until it is free.

    The operating system releases the lock when the process ends, even by kill -9. This distinguishes an abandoned draft from
    one in progress: process ids are reused and mean nothing in another container.

    Raises:
        OSError: the file cannot be opened or the file system has no locks.
    """
    from filelock import lock_descriptor  # imported by writers only

    with path.open("ab") as stream:
        lock_descriptor(stream.fileno(), poll_interval=LOCK_POLL_S)
        yield


def is_locked(path: Path) -> bool:
    """Return whether a running process holds the lock of a file; write nothing."""
    from filelock import lock_descriptor

    try:
        with path.open("rb") as stream:
            return not lock_descriptor(stream.fileno(), blocking=False)
    except FileNotFoundError:
        return False
    except OSError:
        return True


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in _FULL:
            raise DiskFullError(path, why) from error
        if error.errno in _FORBIDDEN:
            raise NotWritableError(path, why) from error
        raise


def _nothing(label: str) -> None:
    """What happens at a step in real life."""


@dataclass(frozen=True)
class Disk:
    """The steps; ``reached`` is called with the label of each, before and after it."""

    reached: Callable[[str], None] = _nothing

    @contextmanager
    def _step(self, label: str, path: Path) -> Iterator[None]:
        with _explained(path):
            self.reached(f"before {label} {path.name}")
            yield
            self.reached(f"after {label} {path.name}")

    def make_folder(self, path: Path) -> None:
        """Make ``path`` and its parents, durably; fine if it exists."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        with self._step("mkdir", path):
            path.mkdir(exist_ok=True)
        self.sync_folder(path.parent)

    def write(self, path: Path, chunks: Iterable[bytes]) -> None:
        """Write a new file and fsync it. The name itself is durable only after ``rename`` or ``sync_folder``."""
        with _explained(path), path.open("xb") as stream:
            for chunk in chunks:
                with self._step("write", path):
                    stream.write(chunk)
                    stream.flush()
            with self._step("fsync", path):
                os.fsync(stream.fileno())

    def append(self, path: Path, data: bytes, *, at_byte: int) -> None:
        """Cut the file at ``at_byte``, append ``data``, fsync; the file is made if need be."""
        is_new = not path.exists()
        with _explained(path), path.open("xb" if is_new else "r+b") as stream:
            stream.truncate(at_byte)
            stream.seek(at_byte)
            with self._step("write", path):
                stream.write(data)
                stream.flush()
            with self._step("fsync", path):
                os.fsync(stream.fileno())
        if is_new:
            self.sync_folder(path.parent)

    def link(self, source: Path, target: Path) -> bool:
        """Give the file a second name and fsync it; False where the file system can't."""
        try:
            with self._step("link", target):
                os.link(source.resolve(), target)
        except (NotWritableError, OSError):
            return False
        self.sync(target)
        return True

    def sync(self, path: Path) -> None:
        """Make the bytes of a file durable."""
        with _explained(path), path.open("rb+") as stream, self._step("fsync", path):
            os.fsync(stream.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """Move a finished file or folder to its final name, durably."""
        with self._step("rename", target):
            source.replace(target)
        self.sync_folder(target.parent)

    def create(self, source: Path, target: Path) -> bool:
        """Move a finished file to a name that must be free, durably; False if it isn't free."""
        try:
            with self._step("rename", target):
                os.link(source, target)
        except FileExistsError:
            return False
        except (NotWritableError, OSError):
            if target.exists():
                return False
            source.replace(target)  # no hard links here: a small window is left in which a second creator would win
        source.unlink(missing_ok=True)
        self.sync_folder(target.parent)
        return True

    def remove(self, path: Path) -> None:
        """Remove a file or a folder with all in it; fine if it is gone."""
        with self._step("remove", path):
            if path.is_dir() and not path.is_symlink():
                import shutil

                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def sync_folder(self, path: Path) -> None:
        """Make the names in ``path`` durable. Windows has no such thing and needs none."""
        if os.name == "nt":
            return
        with self._step("fsync folder", path):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def commit(self, connection: sqlite3.Connection) -> None:
        """Commit the transaction."""
        self.reached("before commit")
        connection.execute("COMMIT")
        self.reached("after commit")
