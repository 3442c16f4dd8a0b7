"""Durable files: writing and locking, and the content-addressed blobs.

Every change to the file system, and every commit, goes through a ``Disk``, for two reasons: durability (file fsync, rename,
folder fsync) is in one place, and tests can stop the process between any two steps (``reached``).

Blobs are ``blobs/sha256/ab/abcdef...``, one read-only file per content, never changed. A file is written to a staging folder on
the same disk, fsynced, renamed, and the folder is fsynced. Only ``gc`` and an aborted publication remove files; both ask the
database which digests are claimed (see ``publication``).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from automl_tl_registry.errors import DamagedBlobError, DiskFullError, NoLocksError, NotWritableError
from automl_tl_registry.values import Blob

CHUNK_BYTES: Final = 1 << 20
PROBE_BYTES: Final = 1 << 16
MIRROR_FILE: Final = "events.jsonl"
LOCK_POLL_S: Final = 0.01  # a mirror is written in a few milliseconds
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_FORBIDDEN: Final = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FOLDER_SYNC: Final = {errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOTSUP}


def chunks_of(path: Path) -> Iterator[bytes]:
    """Yield the content of a file in chunks."""
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of a file, which is created if missing; wait until it is free.

    The operating system releases the lock when the process ends, even by kill -9. This distinguishes an abandoned draft from
    one in progress: process ids are reused and mean nothing in another container.
    """
    from filelock import lock_descriptor  # imported by writers only

    with path.open("ab") as stream:
        try:
            lock_descriptor(stream.fileno(), poll_interval=LOCK_POLL_S)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise NoLocksError(path.parent, str(error.strerror)) from error
            raise
        yield


def check_locks(folder: Path) -> None:
    """Raise ``NoLocksError`` if the file system of ``folder`` is known to have no locks; leave no file behind.

    SQLite reports that as a locked database. Its own file must not be tried: closing it would release SQLite's locks on it.
    """
    try:
        with TemporaryFile(dir=folder) as stream:
            _try_locks(stream.fileno(), folder)
    except OSError:  # not writable; a shared lock needs a file that exists
        with suppress(OSError), (folder / MIRROR_FILE).open("rb") as stream:
            _try_locks(stream.fileno(), folder, is_shared=True)


def _try_locks(descriptor: int, folder: Path, *, is_shared: bool = False) -> None:
    """Try both kinds of locks: flock, which file locks use, and those of fcntl, which SQLite uses."""
    try:
        import fcntl
    except ImportError:  # Windows always has locks
        return
    kind = (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    for take in (fcntl.flock, fcntl.lockf):
        try:
            take(descriptor, kind)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise NoLocksError(folder, str(error.strerror)) from error


def check_writable(folder: Path) -> None:
    """Check that files can be written and locked in ``folder``, or in the nearest folder above if it is missing.

    Raises:
        NotWritableError: no permission, a read-only file system, not a folder, or a name that safetensors cannot open.
        DiskFullError: nothing more can be written.
        NoLocksError: the file system has no locks.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise NotWritableError(folder, f"{existing} is not a folder")
    if any("\ud800" <= character <= "\udfff" for character in str(folder.absolute())):
        raise NotWritableError(folder, "its path is not valid UTF-8")
    with explained(folder), TemporaryFile(dir=existing) as stream:
        stream.write(b"\0" * PROBE_BYTES)
        stream.flush()
        _try_locks(stream.fileno(), folder)


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
def explained(path: Path) -> Iterator[None]:
    """Raise a full disk and a missing permission as errors of the registry that name ``path``."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in _FULL:
            raise DiskFullError(path, why) from error
        if error.errno in _FORBIDDEN:
            raise NotWritableError(path, why) from error
        raise


def _despite_read_only(change: Callable[[], object], path: Path) -> None:
    """Call ``change``; if refused, with ``path`` made writable: Windows neither removes nor replaces read-only files."""
    try:
        change()
    except PermissionError:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & stat.S_IWUSR:
            raise
        path.chmod(mode | stat.S_IWUSR)
        try:
            change()
        except OSError:
            path.chmod(mode)
            raise


@dataclass(frozen=True)
class Disk:
    """Durable steps; ``reached`` is called with a label before and after each step."""

    reached: Callable[[str], None] = lambda label: None

    @contextmanager
    def _step(self, label: str, path: Path) -> Iterator[None]:
        with explained(path):
            self.reached(f"before {label} {path.name}")
            yield
            self.reached(f"after {label} {path.name}")

    def make_folder(self, path: Path) -> None:
        """Create a folder and its parents durably; an existing folder is accepted."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        with self._step("mkdir", path):
            path.mkdir(exist_ok=True)
        self.sync_folder(path.parent)

    def write(self, path: Path, chunks: Iterable[bytes]) -> None:
        """Write a new file and fsync it.

        Args:
            path: an unused path; the name is durable only after ``rename`` or ``sync_folder``.
            chunks: the content.
        """
        with explained(path), path.open("xb") as stream:
            for chunk in chunks:
                with self._step("write", path):
                    stream.write(chunk)
                    stream.flush()
            with self._step("fsync", path):
                os.fsync(stream.fileno())

    def append(self, path: Path, data: bytes, *, at_byte: int) -> None:
        """Append to a file and fsync; create the file if missing.

        Args:
            path: the file.
            data: bytes to append.
            at_byte: offset at which the file is truncated first.
        """
        is_new = not path.exists()
        with explained(path), path.open("xb" if is_new else "r+b") as stream:
            stream.truncate(at_byte)
            stream.seek(at_byte)
            with self._step("write", path):
                stream.write(data)
                stream.flush()
            with self._step("fsync", path):
                os.fsync(stream.fileno())
        if is_new:
            self.sync_folder(path.parent)

    def sync(self, path: Path) -> None:
        """Fsync the content of a file."""
        with explained(path), path.open("rb+") as stream, self._step("fsync", path):
            os.fsync(stream.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """Move a finished file or folder durably.

        Args:
            source: the finished file or folder.
            target: its final path on the same disk; an existing file is replaced.
        """
        with self._step("rename", target):
            _despite_read_only(lambda: source.replace(target), target if target.exists() else source)
        self.sync_folder(target.parent)

    def create(self, source: Path, target: Path) -> bool:
        """Move a finished file durably to an unused name; return False if the name is in use.

        Args:
            source: the finished file.
            target: its final path on the same disk.
        """
        try:
            with self._step("rename", target):
                os.link(source, target)
        except FileExistsError:
            return False
        except (NotWritableError, OSError):
            if target.exists():
                return False
            source.replace(target)  # without hard links, a second creator can still win in a short window
        source.unlink(missing_ok=True)
        self.sync_folder(target.parent)
        return True

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with its content; a missing one is accepted."""
        with self._step("remove", path):
            if path.is_dir() and not path.is_symlink():
                import shutil

                for file in path.rglob("*"):
                    if not file.is_dir():
                        with suppress(OSError):
                            _despite_read_only(file.unlink, file)
                shutil.rmtree(path, ignore_errors=True)
            elif os.path.lexists(path):
                _despite_read_only(lambda: path.unlink(missing_ok=True), path)

    def sync_folder(self, path: Path) -> None:
        """Fsync the names in a folder, where the file system can: Windows and some network folders cannot."""
        if os.name == "nt":
            return
        with self._step("fsync folder", path):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            except OSError as error:
                if error.errno not in _NO_FOLDER_SYNC:
                    raise
            finally:
                os.close(descriptor)

    def commit(self, connection: sqlite3.Connection) -> None:
        """Commit the transaction."""
        self.reached("before commit")
        connection.execute("COMMIT")
        self.reached("after commit")


_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def digest_of(chunks: Iterable[bytes]) -> Blob:
    """Return sha256 and size of the concatenated chunks."""
    state, size = hashlib.sha256(), 0
    for chunk in chunks:
        state.update(chunk)
        size += len(chunk)
    return Blob(digest=state.hexdigest(), size_bytes=size)


@dataclass(frozen=True)
class BlobStore:
    """The files below ``folder``."""

    folder: Path
    disk: Disk

    def path(self, digest: str) -> Path:
        """Return the path of a blob, whether it exists or not."""
        return self.folder / "sha256" / digest[:2] / digest

    def checked(self, digest: str, owner: str = "") -> Path:
        """Return the path of a blob after checking its digest.

        Args:
            digest: sha256 of the content.
            owner: version and role of the blob, for the error.

        Raises:
            DamagedBlobError: it is missing, or its content has another digest.
        """
        path = self.path(digest)
        try:
            actual = digest_of(chunks_of(path)).digest
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise DamagedBlobError(path, expected=digest, found="no file", owner=owner) from error
        if actual != digest:
            raise DamagedBlobError(path, expected=digest, found=actual, owner=owner)
        return path

    def is_sound(self, digest: str) -> bool:
        """Return whether the blob exists and matches its digest."""
        try:
            self.checked(digest)
        except DamagedBlobError:
            return False
        return True

    def receive(self, chunks: Iterable[bytes], blob: Blob, *, staging: Path) -> None:
        """Store content under its digest. An intact blob is shared and nothing is read; a damaged one is replaced.

        Args:
            chunks: the content.
            blob: its expected digest and size.
            staging: folder on the same disk for the incomplete file.

        Raises:
            DamagedBlobError: the content does not match ``blob``; nothing was stored.
        """
        if self.is_sound(blob.digest):
            return
        staged, target = staging / blob.digest, self.path(blob.digest)
        self.disk.write(staged, _verified(chunks, blob, target))
        staged.chmod(0o444)
        self.disk.make_folder(target.parent)
        self.disk.rename(staged, target)

    def put(self, content: bytes, *, staging: Path) -> Blob:
        """Store ``content``, and return its digest and size.

        Args:
            content: all bytes of the blob.
            staging: folder on the same disk for the incomplete file.
        """
        blob = digest_of([content])
        self.receive([content], blob, staging=staging)
        return blob

    def remove(self, digest: str) -> None:
        """Remove a blob; a missing one is accepted."""
        self.disk.remove(self.path(digest))

    def all(self) -> Iterator[tuple[str, int]]:
        """Yield digest and size in bytes of every blob, ordered by digest."""
        for path in sorted((self.folder / "sha256").glob("??/*")):
            if _DIGEST.fullmatch(path.name) and path.is_file():
                yield path.name, path.stat().st_size

    def unknown_files(self) -> Iterator[Path]:
        """Yield files in the store that are not named by a digest."""
        for path in sorted((self.folder / "sha256").glob("*/*")):
            if not (_DIGEST.fullmatch(path.name) and path.parent.name == path.name[:2] and path.is_file()):
                yield path


def _verified(chunks: Iterable[bytes], blob: Blob, path: Path) -> Iterator[bytes]:
    state, size = hashlib.sha256(), 0
    for chunk in chunks:
        state.update(chunk)
        size += len(chunk)
        if size > blob.size_bytes:
            raise DamagedBlobError(path, expected=blob.digest, found=f"more than {blob.size_bytes} bytes")
        yield chunk
    if state.hexdigest() != blob.digest:
        raise DamagedBlobError(path, expected=blob.digest, found=state.hexdigest())
