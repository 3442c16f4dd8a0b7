"""The content-addressed store: ``blobs/sha256/ab/abcdef...``, one read-only file for each content, never changed.

A file arrives by writing to a staging folder on the same disk, fsync, rename, fsync of the folder. Only ``gc``, and a
publication that is given up, remove files; both ask the database which digests are claimed (see ``publication``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from automl_tl_registry.disk import Disk, chunks_of
from automl_tl_registry.errors import DamagedBlobError, MissingBlobError
from automl_tl_registry.values import Blob

__all__ = ["BlobStore", "digest_of"]

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def digest_of(chunks: Iterable[bytes]) -> Blob:
    """sha256 and size of what ``chunks`` make together."""
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
        """Where the blob is, or would be."""
        return self.folder / "sha256" / digest[:2] / digest

    def checked(self, digest: str) -> Path:
        """Path of the blob, after reading all of it.

        Raises:
            MissingBlobError: it isn't there.
            DamagedBlobError: its bytes aren't those that were published.
        """
        path = self.path(digest)
        try:
            found = digest_of(chunks_of(path)).digest
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise MissingBlobError(path, digest) from error
        if found != digest:
            raise DamagedBlobError(path, expected=digest, found=found)
        return path

    def is_sound(self, digest: str) -> bool:
        """Whether the blob is there with its own bytes."""
        try:
            self.checked(digest)
        except (MissingBlobError, DamagedBlobError):
            return False
        return True

    def adopt(self, source: Path, blob: Blob, *, staging: Path, link: bool = False) -> None:
        """Put the content of ``source`` under its digest; a sound blob is shared, a damaged one is put right.

        Raises:
            DamagedBlobError: ``source`` changed while it was read.
        """
        staged = staging / blob.digest
        if link and not self.is_sound(blob.digest) and self.disk.link(source, staged):
            self._place(staged, blob.digest)
        else:
            self.receive(chunks_of(source), blob, staging=staging)

    def receive(self, chunks: Iterable[bytes], blob: Blob, *, staging: Path) -> None:
        """Put what ``chunks`` make under its digest; nothing is read if it is there.

        Raises:
            DamagedBlobError: ``chunks`` make something else.
        """
        if self.is_sound(blob.digest):
            return
        staged = staging / blob.digest
        self.disk.write(staged, _verified(chunks, blob, self.path(blob.digest)))
        self._place(staged, blob.digest)

    def put(self, content: bytes, *, staging: Path) -> Blob:
        """Store ``content`` and give back its address."""
        blob = digest_of([content])
        if not self.is_sound(blob.digest):
            staged = staging / blob.digest
            self.disk.write(staged, [content])
            self._place(staged, blob.digest)
        return blob

    def _place(self, staged: Path, digest: str) -> None:
        staged.chmod(0o444)
        target = self.path(digest)
        self.disk.make_folder(target.parent)
        self.disk.rename(staged, target)

    def remove(self, digest: str) -> None:
        """Remove the blob; fine if it is gone."""
        self.disk.remove(self.path(digest))

    def all(self) -> Iterator[tuple[str, int]]:
        """Digest and size in bytes of every blob, in the order of the digests."""
        for path in sorted((self.folder / "sha256").glob("??/*")):
            if _DIGEST.fullmatch(path.name) and path.is_file():
                yield path.name, path.stat().st_size

    def unknown_files(self) -> Iterator[Path]:
        """Files in the store that no digest names."""
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
