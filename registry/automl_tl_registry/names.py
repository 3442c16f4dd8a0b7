"""Allowed names, and parsing of references. Pure functions; nothing here touches a file.

``name`` is the latest version, ``name@3`` a version, ``name@production`` an alias. Aliases start with a letter, so they never
look like versions. The registry never uses a model name as a path; the rules also keep names safe in shell scripts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from automl_tl_registry.errors import InvalidNameError

__all__ = [
    "KNOWN_ALIASES",
    "LATEST",
    "Reference",
    "checked_alias",
    "checked_name",
    "checked_role",
    "checked_tag",
    "checked_text",
]

LATEST: Final = "latest"
KNOWN_ALIASES: Final = ("production", "staging")
RESERVED_ROLES: Final = ("manifest",)
MAX_TEXT: Final = 2_000  # characters of a reason or an actor; an event stays one short line

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ALIAS: Final = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_ROLE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=+-]{0,127}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Reference:
    """A parsed reference; at most one of ``version`` and ``alias`` is set, and neither means the latest version."""

    name: str
    version: int | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse ``name``, ``name@3`` or ``name@alias``."""
        name, at, rest = text.partition("@")
        checked_name(name)
        if not at or rest == LATEST:
            return cls(name)
        if _NUMBER.fullmatch(rest):
            return cls(name, version=int(rest))
        if _ALIAS.fullmatch(rest):
            return cls(name, alias=rest)
        raise InvalidNameError(text, what="a reference", expected="NAME, NAME@VERSION (a number from 1) or NAME@ALIAS")

    def __str__(self) -> str:
        rest = self.alias if self.version is None else str(self.version)
        return self.name if rest is None else f"{self.name}@{rest}"


def checked_name(text: str) -> str:
    """Return ``text`` if it is a valid model name; otherwise raise InvalidNameError."""
    return _checked(_NAME, text, what="a model name", expected="1 to 64 of a-z 0-9 . _ -, starting with a letter or digit")


def checked_alias(text: str) -> str:
    """Return ``text`` if it is a valid alias; otherwise raise InvalidNameError."""
    if text == LATEST:
        raise InvalidNameError(text, what="an alias", expected="another name, because 'latest' always means the newest version")
    return _checked(_ALIAS, text, what="an alias", expected="1 to 64 of a-z 0-9 . _ -, starting with a letter")


def checked_role(text: str) -> str:
    """Return ``text`` if it is a valid blob role; otherwise raise InvalidNameError."""
    if text in RESERVED_ROLES:
        raise InvalidNameError(text, what="a role", expected="another name, because the registry writes this blob itself")
    return _checked(_ROLE, text, what="a role", expected="1 to 32 of a-z 0-9 _, starting with a letter")


def checked_tag(text: str) -> str:
    """Return ``text`` if it is a valid tag; otherwise raise InvalidNameError."""
    return _checked(_TAG, text, what="a tag", expected="1 to 128 of A-Z a-z 0-9 . _ : = + -, starting with a letter or digit")


def checked_text(text: str, *, what: str) -> str:
    """Check a text that is recorded and shown in a terminal."""
    if len(text) <= MAX_TEXT and all(character.isprintable() or character == "\n" for character in text):
        return text
    raise InvalidNameError(text, what=what, expected=f"at most {MAX_TEXT} printable characters")


def _checked(pattern: re.Pattern[str], text: str, *, what: str, expected: str) -> str:
    if pattern.fullmatch(text):
        return text
    raise InvalidNameError(text, what=what, expected=expected)
