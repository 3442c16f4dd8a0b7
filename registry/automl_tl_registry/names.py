"""Which names are allowed, and how a reference is read. Pure; nothing here touches a file.

``name`` is the latest version, ``name@3`` a version, ``name@production`` an alias. Aliases begin with a letter, so the two
never meet. A model's name is never used as a path by the registry itself; the rules keep it safe in anybody's scripts.
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
    """What a user typed; at most one of ``version`` and ``alias`` is set, none of them means the latest version."""

    name: str
    version: int | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reference written as ``name``, ``name@3`` or ``name@alias``.

        Raises:
            InvalidNameError: the text has another form.
        """
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
    """``text`` if it can name a model, else InvalidNameError."""
    return _checked(_NAME, text, what="a model's name", expected="1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit")


def checked_alias(text: str) -> str:
    """``text`` if it can be an alias, else InvalidNameError."""
    if text == LATEST:
        raise InvalidNameError(text, what="an alias", expected="another word, as this one always means the newest version")
    return _checked(_ALIAS, text, what="an alias", expected="1 to 64 of a-z 0-9 . _ -, beginning with a letter")


def checked_role(text: str) -> str:
    """``text`` if it can be the role of a blob, else InvalidNameError."""
    if text in RESERVED_ROLES:
        raise InvalidNameError(text, what="a role", expected="another word, as the registry writes this blob itself")
    return _checked(_ROLE, text, what="a role", expected="1 to 32 of a-z 0-9 _, beginning with a letter")


def checked_tag(text: str) -> str:
    """``text`` if it can be a tag, else InvalidNameError."""
    return _checked(_TAG, text, what="a tag", expected="1 to 128 of A-Z a-z 0-9 . _ : = + -, beginning with a letter or digit")


def checked_text(text: str, *, what: str) -> str:
    """``text`` if it can be recorded and shown in a terminal, else InvalidNameError."""
    if len(text) <= MAX_TEXT and all(character.isprintable() or character == "\n" for character in text):
        return text
    raise InvalidNameError(text, what=what, expected=f"at most {MAX_TEXT} printable characters")


def _checked(pattern: re.Pattern[str], text: str, *, what: str, expected: str) -> str:
    if pattern.fullmatch(text):
        return text
    raise InvalidNameError(text, what=what, expected=expected)
