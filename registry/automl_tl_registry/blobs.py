"""The content-addressed store: ``blobs/sha256/ab/abcdef...``, one read-only file per content, never changed.

A file is written to a staging folder on the same disk, fsynced, renamed, and the folder is fsynced. Only ``gc`` and an
aborted publication remove files; both ask the database which digests are claimed (see ``publication``).
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

    def checked(self, digest: str) -> Path:
        """Return the path of a blob after checking its digest.

        Raises:
            MissingBlobError: the blob does not exist.
            DamagedBlobError: its bytes differ from what was published.
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
        """Return whether the blob exists and matches its digest."""
        try:
            self.checked(digest)
        except (MissingBlobError, DamagedBlobError):
            return False
        return True

    def adopt(self, source: Path, blob: Blob, *, staging: Path, link: bool = False) -> None:
        """Store the content of a file under its digest; an intact blob is shared, a damaged one is replaced.

        Args:
            source: the file.
            blob: digest and size of the file.
            staging: folder of the publication.
            link: link the file instead of copying it, where possible.

        Raises:
            DamagedBlobError: the file changed while it was read.
        """
        staged = staging / blob.digest
        if link and not self.is_sound(blob.digest) and self.disk.link(source, staged):
            self._place(staged, blob.digest)
        else:
            self.receive(chunks_of(source), blob, staging=staging)

    def receive(self, chunks: Iterable[bytes], blob: Blob, *, staging: Path) -> None:
        """Store the concatenated chunks under their digest; nothing is read if the blob is intact.

        Args:
            chunks: the content.
            blob: the expected digest and size.
            staging: folder of the publication.

        Raises:
            DamagedBlobError: the content does not match ``blob``.
        """
        if self.is_sound(blob.digest):
            return
        staged = staging / blob.digest
        self.disk.write(staged, _verified(chunks, blob, self.path(blob.digest)))
        self._place(staged, blob.digest)

    def put(self, content: bytes, *, staging: Path) -> Blob:
        """Store ``content`` and return its digest and size."""
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
