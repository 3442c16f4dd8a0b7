"""Every error of the registry, as one tree.

    RegistryError
    ├── UsageError                the request is malformed                          exit 2
    │   ├── InvalidNameError      a name, alias, role, tag or reference
    │   ├── KeyFileError          not a usable key file
    │   └── MissingPackageError   an optional package is not installed
    ├── NotFoundError             no such model, version, alias, role or file       exit 6
    │   └── MissingObjectError    in a shared registry
    ├── ConflictError             the request conflicts with the current state      exit 7
    │   └── AliasMovedError       compare-and-set lost
    ├── GateFailedError           a promotion failed its gates                      exit 8
    ├── IntegrityError            damaged, incomplete or malicious content          exit 9
    │   ├── DamagedBlobError      missing, or bytes differ from their digest
    │   ├── InvalidBlobError      not a usable safetensors file
    │   ├── DamagedManifestError
    │   ├── DamagedDatabaseError
    │   ├── DamagedObjectError    an object of a shared registry
    │   ├── UnsafeArchiveError    links, ``..`` or unknown files in an archive
    │   └── SignatureError        missing, by another key, or of other content
    └── StorageError              disk, file format, or database busy for too long  exit 10
        ├── NotWritableError
        ├── NoLocksError
        ├── DiskFullError
        ├── RemoteError           a shared registry is out of reach
        └── NoExclusiveCreateError

Every message says what was found, what was expected and what to do. Exit codes are those of ``tl registry``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar


def nearest(name: str, known: Collection[str], otherwise: str) -> str:
    """Return a sentence that suggests the most similar of the known names.

    Args:
        name: the unknown name.
        known: existing names.
        otherwise: sentence to use if none is similar.
    """
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
        shown = ascii(text if len(text) <= 100 else text[:97] + "...")
        super().__init__(f"{shown} cannot be {what}; expected {expected}.")


class KeyFileError(UsageError):
    """A key file cannot be used."""

    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        super().__init__(
            f"{path} cannot be used as a key: {why}. Expected a PEM file with an elliptic-curve key (P-256 to P-521)."
        )


class MissingPackageError(UsageError):
    """An optional package is not installed; ``extra`` brings it."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"This needs {package}, which is not installed: `pip install 'automl-tl[{extra}]'`.")


class AliasMovedError(ConflictError):
    """Compare-and-set failed: the alias points elsewhere than the caller expected."""

    def __init__(
        self, name: str, alias: str, *, expected: int | None, found: int | None, by: str = "", remote: str = ""
    ) -> None:
        self.name, self.alias, self.expected, self.found, self.by = name, alias, expected, found, by
        shown = ["unset" if version is None else f"{name}@{version}" for version in (expected, found)]
        super().__init__(
            f"{name}@{alias} was expected to be {shown[0]}, but it is {shown[1]}: it was moved "
            f"in the meantime{by and f' by {by}'}. "
            f"See `tl registry history {name}{remote and f' --remote {remote}'}` and try again."
        )


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


class DamagedBlobError(IntegrityError):
    """A file of a version is missing, or its content differs from what was published."""

    def __init__(self, path: Path, *, expected: str, found: str, owner: str = "") -> None:
        self.path, self.expected, self.found = path, expected, found
        super().__init__(
            f"The blob {path}{owner and f' ({owner})'} is damaged: expected sha256 {expected}, found {found}. "
            "It was not loaded. To repair it, import an export of the version or publish the same file again."
        )


class InvalidBlobError(IntegrityError):
    """Not a usable safetensors file."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is not a usable safetensors file: {why}. Write it again with safetensors.")


class DamagedManifestError(IntegrityError):
    """A manifest is invalid."""

    def __init__(self, where: str | Path, why: str) -> None:
        super().__init__(f"The manifest in {where} is invalid: {why}. Nothing was imported from it.")


class DamagedDatabaseError(IntegrityError):
    """The database is unreadable, or missing while blobs exist."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"The registry database {path} is unusable: {why}. `tl registry rebuild` restores it from the blobs.")


class UnsafeArchiveError(IntegrityError):
    """An archive contains something that an export never contains."""

    def __init__(self, path: Path | str, problems: Sequence[str]) -> None:
        super().__init__(f"{path} is not a valid export: {'; '.join(problems)}. Nothing was written.")


class SignatureError(IntegrityError):
    """A version or an alias is not signed, or its signature does not hold; ``problems`` has one line each."""

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        self.subject, self.problems = subject, tuple(problems)
        super().__init__(f"The signature of {subject} was refused: {'; '.join(problems)}.")


class NotWritableError(StorageError):
    """The registry is not writable."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        advice = "Use --registry or TL_HOME with a folder that is writable."
        super().__init__(f"{path} is not writable: {why}. Nothing was changed. {advice}")


class NoLocksError(StorageError):
    """The file system has no file locks, so that two processes could damage the registry."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, f"its file system has no file locks: {why}"
        super().__init__(
            f"{path} is on a file system without file locks ({why}), which the registry needs to be safe from other processes. "
            "Nothing was changed. Use --registry or TL_HOME with a folder on a local disk, or mount it with locks."
        )


class DiskFullError(StorageError):
    """The disk, or the quota, is full."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"No space left to write {path}: {why}. Nothing was changed; `tl registry gc` may free space.")


class RemoteError(StorageError):
    """A shared registry cannot be reached, or refuses access."""

    def __init__(
        self, url: str, why: str, advice: str = "Check the address, the network and the credentials, and try again."
    ) -> None:
        self.url, self.why = url, why
        super().__init__(f"{url} cannot be used: {why}. {advice}")


class NoExclusiveCreateError(StorageError):
    """A store cannot create an object only if there is none, so that two processes could move an alias at once."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"{url} cannot create an object only if there is none yet, so two people could move an alias at the same time. "
            "Nothing was changed. Aliases, deletions and gc need s3://, gs://, az:// or a folder with hard links."
        )


class MissingObjectError(NotFoundError):
    """A shared registry has no such object."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(f"There is no object {url}.")


class DamagedObjectError(IntegrityError):
    """An object of a shared registry is missing, or its content differs from what was pushed."""

    def __init__(self, url: str, why: str, advice: str = "") -> None:
        self.url, self.why = url, why
        repair = "`tl registry push --repair` from a registry that has an intact copy replaces damaged files."
        super().__init__(f"{url} is damaged: {why}. Nothing was taken from it. {advice or repair}")
