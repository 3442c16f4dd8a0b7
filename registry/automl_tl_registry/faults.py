"""Errors that tell of damage, or of a disk that doesn't allow it. ``errors`` draws the tree; import from there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from automl_tl_registry.error_roots import IntegrityError, StorageError

__all__ = [
    "BusyError",
    "DamagedBlobError",
    "DamagedDatabaseError",
    "DamagedManifestError",
    "DiskFullError",
    "InvalidBlobError",
    "MissingBlobError",
    "NewerSchemaError",
    "NotWritableError",
    "UnsafeArchiveError",
]


class MissingBlobError(IntegrityError):
    """A file that a version needs is gone."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = path, digest
        super().__init__(
            f"The blob {digest} is missing: expected it at {path}. "
            "Import an export of the version, or publish the same file again; both put it back."
        )


class DamagedBlobError(IntegrityError):
    """The bytes of a file aren't those that were published."""

    def __init__(self, path: Path, *, expected: str, found: str) -> None:
        self.path, self.expected, self.found = path, expected, found
        super().__init__(
            f"The blob {path} is damaged: expected sha256 {expected}, found {found}. It was not loaded. "
            "Import an export of the version, or publish the same file again; both put it right."
        )


class InvalidBlobError(IntegrityError):
    """Not a safetensors file that we would load."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path} is not a safetensors file that can be used: {why}. Write it again with safetensors.")


class DamagedManifestError(IntegrityError):
    """A manifest doesn't say what a manifest must say."""

    def __init__(self, where: str, why: str) -> None:
        self.where, self.why = where, why
        super().__init__(f"The manifest in {where} can't be used: {why}. Nothing was taken from it.")


class DamagedDatabaseError(IntegrityError):
    """The database can't be read, or is gone while blobs are there."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(
            f"The registry's database {path} can't be used: {why}. `tl registry rebuild` restores it from the blobs."
        )


class UnsafeArchiveError(IntegrityError):
    """An export holds something that an export never holds."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.path, self.problems = path, tuple(problems)
        super().__init__(f"{path} is not an export that can be imported: {'; '.join(problems)}. Nothing was written.")


class NotWritableError(StorageError):
    """Somewhere below the registry nothing can be written."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(
            f"{path} can't be written: {why}. Nothing was changed; reading works. Use a registry that is yours to write."
        )


class DiskFullError(StorageError):
    """The disk, or the quota, is full."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"No space is left to write {path}: {why}. Nothing was changed; `tl registry gc` may free some.")


class BusyError(StorageError):
    """Other processes held the database for longer than the timeout."""

    def __init__(self, path: Path, waited_s: float) -> None:
        self.path, self.waited_s = path, waited_s
        super().__init__(f"Another process has held {path} for more than {waited_s:.0f} s. Nothing was changed; try again.")


class NewerSchemaError(StorageError):
    """The registry was written by a later release than this one."""

    def __init__(self, path: Path, *, found: int, known: int) -> None:
        self.path, self.found, self.known = path, found, known
        super().__init__(
            f"{path} has schema {found}, this release knows up to {known}. Nothing was changed; upgrade automl_tl."
        )
