"""The root of the error tree and its branches, with their exit codes. ``errors`` draws the tree; import from there."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

__all__ = ["ConflictError", "IntegrityError", "NotFoundError", "RegistryError", "StorageError", "UsageError", "nearest"]


def nearest(name: str, offered: Collection[str], otherwise: str) -> str:
    """A sentence that names the most similar of ``offered``, or ``otherwise`` when none is near."""
    from difflib import get_close_matches  # only errors need it

    near = get_close_matches(name, offered, n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


class RegistryError(Exception):
    """Root of the tree; ``exit_code`` is what ``tl`` ends with."""

    exit_code: ClassVar[int] = 1


class UsageError(RegistryError):
    """The request itself can't be understood."""

    exit_code = 2


class NotFoundError(RegistryError):
    """What was named isn't there."""

    exit_code = 6


class ConflictError(RegistryError):
    """Somebody or something stands in the way."""

    exit_code = 7


class IntegrityError(RegistryError):
    """Damaged, incomplete or malicious content; nothing of it was used."""

    exit_code = 9


class StorageError(RegistryError):
    """The disk or the file format prevents it."""

    exit_code = 10
