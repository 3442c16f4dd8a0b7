"""Errors that say no to a request, while the registry itself is well. ``errors`` draws the tree; import from there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from automl_tl_registry.error_roots import ConflictError, NotFoundError, RegistryError, UsageError, nearest

__all__ = [
    "AliasMovedError",
    "AliasNotFoundError",
    "GateRefusedError",
    "InvalidNameError",
    "InvalidPolicyError",
    "ModelNotFoundError",
    "NothingToRollBackError",
    "ProtectedVersionError",
    "ReasonNeededError",
    "RoleNotFoundError",
    "SourceNotFoundError",
    "TargetExistsError",
    "VersionNotFoundError",
]


class InvalidNameError(UsageError):
    """A name, alias, role, tag or reference has a form that is not allowed."""

    def __init__(self, text: str, *, what: str, expected: str) -> None:
        self.text, self.what, self.expected = text, what, expected
        shown = ascii(text if len(text) <= 100 else text[:97] + "...")
        super().__init__(f"{shown} can't be {what}: expected {expected}.")


class InvalidPolicyError(UsageError):
    """The gates file can't be read."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.path, self.problems = path, tuple(problems)
        listed = "; ".join(problems)
        super().__init__(f"The gates in {path} can't be used: {listed}. Correct the file, or remove it to use the defaults.")


class ReasonNeededError(UsageError):
    """Something was forced without saying why."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what} was forced without a reason. It is recorded for ever, so say why: `--reason TEXT`.")


class ModelNotFoundError(NotFoundError):
    """No model has this name."""

    def __init__(self, name: str, known: Collection[str]) -> None:
        self.name, self.known = name, tuple(known)
        hint = nearest(name, known, "`tl registry list` shows what there is." if known else "The registry is empty.")
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
    """A file or folder that shall be published or imported isn't there."""

    def __init__(self, path: Path, *, what: str) -> None:
        self.path, self.what = path, what
        super().__init__(f"There is no readable {what} at {path}. Give the path of an existing one.")


class AliasMovedError(ConflictError):
    """Compare-and-set lost: the alias isn't where the caller believed it to be."""

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

    def __init__(self, ref: str, why: str) -> None:
        self.ref, self.why = ref, why
        super().__init__(f"{ref} can't be deleted: {why}.")


class NothingToRollBackError(ConflictError):
    """The alias has no earlier version to go back to."""

    def __init__(self, name: str, alias: str, why: str) -> None:
        self.name, self.alias, self.why = name, alias, why
        super().__init__(f"{name}@{alias} can't be rolled back: {why}. `tl registry promote` can set it to any version.")


class TargetExistsError(ConflictError):
    """Export would overwrite something."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} exists and holds something else. Nothing was written; choose another target or remove it.")


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
