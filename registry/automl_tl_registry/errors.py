"""Every error of the registry, as one tree.

    RegistryError
    ├── UsageError                the request is malformed                          exit 2
    │   ├── InvalidNameError      a name, alias, role, tag or reference
    │   ├── InvalidPolicyError    gates.toml
    │   └── ReasonNeededError     an override without a reason
    ├── NotFoundError                                                               exit 6
    │   ├── ModelNotFoundError
    │   ├── VersionNotFoundError
    │   ├── AliasNotFoundError
    │   ├── RoleNotFoundError
    │   └── SourceNotFoundError   a file to publish or to import
    ├── ConflictError             the request conflicts with the current state      exit 7
    │   ├── AliasMovedError       compare-and-set lost
    │   ├── ProtectedVersionError the version has or had an alias
    │   ├── NothingToRollBackError
    │   └── TargetExistsError     export would overwrite
    ├── GateFailedError          a promotion failed its gates                      exit 8
    ├── IntegrityError            damaged, incomplete or malicious content          exit 9
    │   ├── MissingBlobError
    │   ├── DamagedBlobError      bytes differ from their digest
    │   ├── InvalidBlobError      not a usable safetensors file
    │   ├── DamagedManifestError
    │   ├── DamagedDatabaseError
    │   └── UnsafeArchiveError    links, ``..`` or unknown files in an archive
    └── StorageError              the disk or the file format                       exit 10
        ├── NotWritableError
        ├── DiskFullError
        ├── BusyError             other processes held the database for too long
        └── NewerSchemaError      written by a later release

Every message says what was found, what was expected and what to do; the facts are attributes. Exit codes are those of
``tl registry``. This module imports only the standard library.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar

__all__ = [
    "AliasMovedError",
    "AliasNotFoundError",
    "BusyError",
    "ConflictError",
    "DamagedBlobError",
    "DamagedDatabaseError",
    "DamagedManifestError",
    "DiskFullError",
    "GateFailedError",
    "IntegrityError",
    "InvalidBlobError",
    "InvalidNameError",
    "InvalidPolicyError",
    "MissingBlobError",
    "ModelNotFoundError",
    "NewerSchemaError",
    "NotFoundError",
    "NotWritableError",
    "NothingToRollBackError",
    "ProtectedVersionError",
    "ReasonNeededError",
    "RegistryError",
    "RoleNotFoundError",
    "SourceNotFoundError",
    "StorageError",
    "TargetExistsError",
    "UnsafeArchiveError",
    "UsageError",
    "VersionNotFoundError",
    "nearest",
]


def nearest(name: str, known: Collection[str], otherwise: str) -> str:
    """Return a sentence that suggests the most similar name, or ``otherwise`` if none is similar."""
    from difflib import get_close_matches  # imported only when an error is raised

    near = get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


class RegistryError(Exception):
    """Root of the tree; ``exit_code`` is the exit code of ``tl``."""

    exit_code: ClassVar[int] = 1


class UsageError(RegistryError):
    """The request is malformed."""

    exit_code = 2


class NotFoundError(RegistryError):
    """The named object does not exist."""

    exit_code = 6


class ConflictError(RegistryError):
    """The request conflicts with the current state."""

    exit_code = 7


class IntegrityError(RegistryError):
    """Damaged, incomplete or malicious content; none of it was used."""

    exit_code = 9


class StorageError(RegistryError):
    """The disk or the file format prevents the operation."""

    exit_code = 10


class InvalidNameError(UsageError):
    """A name, alias, role, tag or reference is malformed."""

    def __init__(self, text: str, *, what: str, expected: str) -> None:
        self.text, self.what, self.expected = text, what, expected
        shown = ascii(text if len(text) <= 100 else text[:97] + "...")
        super().__init__(f"{shown} cannot be {what}; expected {expected}.")


class InvalidPolicyError(UsageError):
    """The gates file is invalid."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.path, self.problems = path, tuple(problems)
        listed = "; ".join(problems)
        super().__init__(f"The gates in {path} are invalid: {listed}. Correct the file, or remove it to use the defaults.")


class ReasonNeededError(UsageError):
    """An override was requested without a reason."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what} was forced without a reason. Overrides are recorded; add `--reason TEXT`.")


class ModelNotFoundError(NotFoundError):
    """No model has this name."""

    def __init__(self, name: str, known: Collection[str]) -> None:
        self.name, self.known = name, tuple(known)
        hint = nearest(name, known, "`tl registry list` shows all models." if known else "The registry is empty.")
        super().__init__(f"There is no model named {name!r}. {hint}")


class VersionNotFoundError(NotFoundError):
    """The model has no such version."""

    def __init__(self, name: str, version: int, known: Sequence[int], *, deleted: bool = False) -> None:
        self.name, self.version, self.known, self.deleted = name, version, tuple(known), deleted
        found = f"{name}@{version} was deleted" if deleted else f"{name} has no version {version}"
        shown = ", ".join(str(number) for number in known[-5:]) or "none"
        super().__init__(f"{found}; its latest versions are: {shown}. `tl registry list {name}` shows all.")


class AliasNotFoundError(NotFoundError):
    """The model has no such alias."""

    def __init__(self, name: str, alias: str, known: Collection[str]) -> None:
        self.name, self.alias, self.known = name, alias, tuple(known)
        otherwise = f"It has: {', '.join(known)}." if known else f"`tl registry promote {name}@VERSION {alias}` sets it."
        super().__init__(f"No version of {name} has the alias {alias!r}. {nearest(alias, known, otherwise)}")


class RoleNotFoundError(NotFoundError):
    """The version has no blob of this role."""

    def __init__(self, ref: str, role: str, known: Collection[str]) -> None:
        self.ref, self.role, self.known = ref, role, tuple(known)
        listed = f"It has: {', '.join(known)}."
        super().__init__(f"{ref} has no blob {role!r}. {nearest(role, known, listed)}")


class SourceNotFoundError(NotFoundError):
    """A file or folder to publish or import does not exist."""

    def __init__(self, path: Path, *, what: str) -> None:
        self.path, self.what = path, what
        super().__init__(f"There is no readable {what} at {path}. Specify an existing path.")


class AliasMovedError(ConflictError):
    """Compare-and-set failed: the alias points elsewhere than the caller expected."""

    def __init__(self, name: str, alias: str, *, expected: int | None, found: int | None) -> None:
        self.name, self.alias, self.expected, self.found = name, alias, expected, found
        super().__init__(
            f"{name}@{alias} was expected to be {_place(name, expected)}, but it is {_place(name, found)}: it was moved "
            f"in the meantime. See `tl registry history {name}` and try again."
        )


def _place(name: str, version: int | None) -> str:
    return "unset" if version is None else f"{name}@{version}"


class ProtectedVersionError(ConflictError):
    """The version has, or recently had, an alias."""

    def __init__(self, ref: str, why: str) -> None:
        self.ref, self.why = ref, why
        super().__init__(f"{ref} cannot be deleted: {why}.")


class NothingToRollBackError(ConflictError):
    """The alias has no earlier version."""

    def __init__(self, name: str, alias: str, why: str) -> None:
        self.name, self.alias, self.why = name, alias, why
        super().__init__(f"{name}@{alias} cannot be rolled back: {why}. `tl registry promote` can point it to any version.")


class TargetExistsError(ConflictError):
    """Export would overwrite something."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} exists and holds something else. Nothing was written; choose another target or remove it.")


class GateFailedError(RegistryError):
    """A promotion failed its gates; ``failures`` holds one line with figures per gate."""

    exit_code = 8

    def __init__(self, ref: str, alias: str, failures: Sequence[str]) -> None:
        self.ref, self.alias, self.failures = ref, alias, tuple(failures)
        listed = "\n".join(f"  - {line}" for line in failures)
        count = f"{len(failures)} gate{'s' if len(failures) > 1 else ''}"
        super().__init__(
            f"{ref} was not promoted to {alias}: {count} failed.\n{listed}\n"
            "Improve the model, change gates.toml, or override with `--force --reason TEXT`, which is recorded."
        )


class MissingBlobError(IntegrityError):
    """A file of a version is missing."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = path, digest
        super().__init__(
            f"The blob {digest} is missing: expected it at {path}. "
            "To restore it, import an export of the version or publish the same file again."
        )


class DamagedBlobError(IntegrityError):
    """The content of a file differs from what was published."""

    def __init__(self, path: Path, *, expected: str, found: str) -> None:
        self.path, self.expected, self.found = path, expected, found
        super().__init__(
            f"The blob {path} is damaged: expected sha256 {expected}, found {found}. It was not loaded. "
            "To repair it, import an export of the version or publish the same file again."
        )


class InvalidBlobError(IntegrityError):
    """Not a usable safetensors file."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path} is not a usable safetensors file: {why}. Write it again with safetensors.")


class DamagedManifestError(IntegrityError):
    """A manifest is invalid."""

    def __init__(self, where: str, why: str) -> None:
        self.where, self.why = where, why
        super().__init__(f"The manifest in {where} is invalid: {why}. Nothing was imported from it.")


class DamagedDatabaseError(IntegrityError):
    """The database is unreadable, or missing while blobs exist."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"The registry database {path} is unusable: {why}. `tl registry rebuild` restores it from the blobs.")


class UnsafeArchiveError(IntegrityError):
    """An archive contains something that an export never contains."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.path, self.problems = path, tuple(problems)
        super().__init__(f"{path} is not a valid export: {'; '.join(problems)}. Nothing was written.")


class NotWritableError(StorageError):
    """The registry is not writable."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path} is not writable: {why}. Nothing was changed. Use a registry that is writable.")


class DiskFullError(StorageError):
    """The disk, or the quota, is full."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"No space left to write {path}: {why}. Nothing was changed; `tl registry gc` may free space.")


class BusyError(StorageError):
    """Other processes held the database for longer than the timeout."""

    def __init__(self, path: Path, waited_s: float) -> None:
        self.path, self.waited_s = path, waited_s
        super().__init__(f"Another process has held {path} for more than {waited_s:.0f} s. Nothing was changed; try again.")


class NewerSchemaError(StorageError):
    """The registry was written by a newer release."""

    def __init__(self, path: Path, *, found: int, known: int) -> None:
        self.path, self.found, self.known = path, found, known
        super().__init__(
            f"{path} has schema {found}; this release supports up to {known}. Nothing was changed; upgrade automl_tl."
        )
