"""Everything that a registry can refuse or find broken, as one tree.

    RegistryError
    ├── UsageError                the request itself can't be understood            exit 2
    │   ├── InvalidNameError      a name, alias, role, tag or reference
    │   ├── InvalidPolicyError    gates.toml
    │   └── ReasonNeededError     something was forced without saying why
    ├── NotFoundError                                                               exit 6
    │   ├── ModelNotFoundError
    │   ├── VersionNotFoundError
    │   ├── AliasNotFoundError
    │   ├── RoleNotFoundError
    │   └── SourceNotFoundError   a file to publish or to import
    ├── ConflictError             somebody or something stands in the way           exit 7
    │   ├── AliasMovedError       compare-and-set lost
    │   ├── ProtectedVersionError delete refused
    │   ├── NothingToRollBackError
    │   └── TargetExistsError     export would overwrite
    ├── GateRefusedError          promotion refused, with figures                   exit 8
    ├── IntegrityError            damaged, incomplete or malicious                  exit 9
    │   ├── MissingBlobError
    │   ├── DamagedBlobError      bytes differ from their digest
    │   ├── InvalidBlobError      not a safetensors file that we would load
    │   ├── DamagedManifestError
    │   ├── DamagedDatabaseError
    │   └── UnsafeArchiveError    links, ``..``, strangers in an archive
    └── StorageError              the disk or the file format                       exit 10
        ├── NotWritableError
        ├── DiskFullError
        ├── BusyError             other processes held the database for too long
        └── NewerSchemaError      written by a later release

Every text says what was found, what was expected and what to do; the facts are attributes. Exit codes are those of
``tl registry``. Nothing here may import anything but the standard library.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
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
    "GateRefusedError",
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


def nearest(name: str, offered: Collection[str], otherwise: str) -> str:
    """A sentence that names the most similar of ``offered``, or ``otherwise`` when none is near."""
    near = get_close_matches(name, offered, n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


class RegistryError(Exception):
    """Root of the tree; ``exit_code`` is what ``tl`` ends with."""

    exit_code: ClassVar[int] = 1


# ------------------------------------------------------------------------------------------------------------ usage


class UsageError(RegistryError):
    """The request itself can't be understood."""

    exit_code = 2


class InvalidNameError(UsageError):
    """A name, alias, role, tag or reference has a form that is not allowed."""

    exit_code = 2

    def __init__(self, text: str, *, what: str, expected: str) -> None:
        self.text, self.what, self.expected = text, what, expected
        shown = ascii(text if len(text) <= 100 else text[:97] + "...")
        super().__init__(f"{shown} can't be {what}: expected {expected}.")


class InvalidPolicyError(UsageError):
    """The gates file can't be read."""

    exit_code = 2

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.path, self.problems = path, tuple(problems)
        listed = "; ".join(problems)
        super().__init__(f"The gates in {path} can't be used: {listed}. Correct the file, or remove it to use the defaults.")


class ReasonNeededError(UsageError):
    """Something was forced without saying why."""

    exit_code = 2

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what} was forced without a reason. It is recorded for ever, so say why: `--reason TEXT`.")


# -------------------------------------------------------------------------------------------------------- not found


class NotFoundError(RegistryError):
    """What was named isn't there."""

    exit_code = 6


class ModelNotFoundError(NotFoundError):
    """No model has this name."""

    exit_code = 6

    def __init__(self, name: str, known: Collection[str]) -> None:
        self.name, self.known = name, tuple(known)
        hint = nearest(name, known, "`tl registry list` shows what there is." if known else "The registry is empty.")
        super().__init__(f"There is no model named {name!r}. {hint}")


class VersionNotFoundError(NotFoundError):
    """The model has no such version."""

    exit_code = 6

    def __init__(self, name: str, version: int, known: Sequence[int], *, deleted: bool = False) -> None:
        self.name, self.version, self.known, self.deleted = name, version, tuple(known), deleted
        found = f"{name}@{version} was deleted" if deleted else f"{name} has no version {version}"
        shown = ", ".join(str(number) for number in known[-5:]) or "none"
        super().__init__(f"{found}; its latest versions are: {shown}. `tl registry list {name}` shows all.")


class AliasNotFoundError(NotFoundError):
    """The model has no such alias."""

    exit_code = 6

    def __init__(self, name: str, alias: str, known: Collection[str]) -> None:
        self.name, self.alias, self.known = name, alias, tuple(known)
        otherwise = f"It has: {', '.join(known)}." if known else f"`tl registry promote {name}@VERSION {alias}` sets it."
        super().__init__(f"No version of {name} has the alias {alias!r}. {nearest(alias, known, otherwise)}")


class RoleNotFoundError(NotFoundError):
    """The version has no blob of this role."""

    exit_code = 6

    def __init__(self, ref: str, role: str, known: Collection[str]) -> None:
        self.ref, self.role, self.known = ref, role, tuple(known)
        listed = f"It has: {', '.join(known)}."
        super().__init__(f"{ref} has no blob {role!r}. {nearest(role, known, listed)}")


class SourceNotFoundError(NotFoundError):
    """A file or folder that shall be published or imported isn't there."""

    exit_code = 6

    def __init__(self, path: Path, *, what: str) -> None:
        self.path, self.what = path, what
        super().__init__(f"There is no readable {what} at {path}. Give the path of an existing one.")


# --------------------------------------------------------------------------------------------------------- conflict


class ConflictError(RegistryError):
    """Somebody or something stands in the way."""

    exit_code = 7


class AliasMovedError(ConflictError):
    """Compare-and-set lost: the alias isn't where the caller believed it to be."""

    exit_code = 7

    def __init__(self, name: str, alias: str, *, expected: int | None, found: int | None) -> None:
        self.name, self.alias, self.expected, self.found = name, alias, expected, found
        super().__init__(
            f"{name}@{alias} was expected to be {_place(name, expected)}, but it is {_place(name, found)}: somebody else "
            f"moved it. Look at `tl registry history {name}` and try again."
        )


def _place(name: str, version: int | None) -> str:
    return "unset" if version is None else f"{name}@{version}"


class ProtectedVersionError(ConflictError):
    """The version is, or lately was, aliased."""

    exit_code = 7

    def __init__(self, ref: str, why: str) -> None:
        self.ref, self.why = ref, why
        super().__init__(f"{ref} can't be deleted: {why}.")


class NothingToRollBackError(ConflictError):
    """The alias has no earlier version to go back to."""

    exit_code = 7

    def __init__(self, name: str, alias: str, why: str) -> None:
        self.name, self.alias, self.why = name, alias, why
        super().__init__(f"{name}@{alias} can't be rolled back: {why}. `tl registry promote` can set it to any version.")


class TargetExistsError(ConflictError):
    """Export would overwrite something."""

    exit_code = 7

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} exists and holds something else. Nothing was written; choose another target or remove it.")


# ------------------------------------------------------------------------------------------------------------ gates


class GateRefusedError(RegistryError):
    """Gates refused a promotion; ``failures`` holds one line with figures for each."""

    exit_code = 8

    def __init__(self, ref: str, alias: str, failures: Sequence[str]) -> None:
        self.ref, self.alias, self.failures = ref, alias, tuple(failures)
        listed = "\n".join(f"  - {line}" for line in failures)
        count = f"{len(failures)} gate{'s' if len(failures) > 1 else ''}"
        super().__init__(
            f"{ref} was not promoted to {alias}: {count} refused.\n{listed}\n"
            "Improve the model, change gates.toml, or use `--force --reason TEXT`, which is recorded."
        )


# -------------------------------------------------------------------------------------------------------- integrity


class IntegrityError(RegistryError):
    """Damaged, incomplete or malicious content; nothing of it was used."""

    exit_code = 9


class MissingBlobError(IntegrityError):
    """A file that a version needs is gone."""

    exit_code = 9

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = path, digest
        super().__init__(
            f"The blob {digest} is missing: expected it at {path}. "
            "Import an export of the version, or publish the same file again; both put it back."
        )


class DamagedBlobError(IntegrityError):
    """The bytes of a file aren't those that were published."""

    exit_code = 9

    def __init__(self, path: Path, *, expected: str, found: str) -> None:
        self.path, self.expected, self.found = path, expected, found
        super().__init__(
            f"The blob {path} is damaged: expected sha256 {expected}, found {found}. It was not loaded. "
            "Import an export of the version, or publish the same file again; both put it right."
        )


class InvalidBlobError(IntegrityError):
    """Not a safetensors file that we would load."""

    exit_code = 9

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path} is not a safetensors file that can be used: {why}. Write it again with safetensors.")


class DamagedManifestError(IntegrityError):
    """A manifest doesn't say what a manifest must say."""

    exit_code = 9

    def __init__(self, where: str, why: str) -> None:
        self.where, self.why = where, why
        super().__init__(f"The manifest in {where} can't be used: {why}. Nothing was taken from it.")


class DamagedDatabaseError(IntegrityError):
    """The database can't be read, or is gone while blobs are there."""

    exit_code = 9

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(
            f"The registry's database {path} can't be used: {why}. `tl registry rebuild` restores it from the blobs."
        )


class UnsafeArchiveError(IntegrityError):
    """An export holds something that an export never holds."""

    exit_code = 9

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.path, self.problems = path, tuple(problems)
        super().__init__(f"{path} is not an export that can be imported: {'; '.join(problems)}. Nothing was written.")


# ---------------------------------------------------------------------------------------------------------- storage


class StorageError(RegistryError):
    """The disk or the file format prevents it."""

    exit_code = 10


class NotWritableError(StorageError):
    """Somewhere below the registry nothing can be written."""

    exit_code = 10

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(
            f"{path} can't be written: {why}. Nothing was changed; reading works. Use a registry that is yours to write."
        )


class DiskFullError(StorageError):
    """The disk, or the quota, is full."""

    exit_code = 10

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"No space is left to write {path}: {why}. Nothing was changed; `tl registry gc` may free some.")


class BusyError(StorageError):
    """Other processes held the database for longer than the timeout."""

    exit_code = 10

    def __init__(self, path: Path, waited_s: float) -> None:
        self.path, self.waited_s = path, waited_s
        super().__init__(f"Another process has held {path} for more than {waited_s:.0f} s. Nothing was changed; try again.")


class NewerSchemaError(StorageError):
    """The registry was written by a later release than this one."""

    exit_code = 10

    def __init__(self, path: Path, *, found: int, known: int) -> None:
        self.path, self.found, self.known = path, found, known
        super().__init__(
            f"{path} has schema {found}, this release knows up to {known}. Nothing was changed; upgrade automl_tl."
        )
