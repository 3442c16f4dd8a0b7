"""JSON that is written piece by piece, for what lies on disk since it would fill the memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import indent

__all__ = ["long_json"]


def long_json(text: str, name: str, items: Iterable[str]) -> Iterator[str]:
    """Pieces of ``text``, JSON indented by 2, whose first empty array or object ``name`` is filled with ``items``.

    Quotes inside of JSON's texts are escaped, so that no text can be taken for the name.
    """
    before, key, after = text.partition(f'"{name}": ')
    yield before + key + after[0]
    depth = len(before) - len(before.rstrip(" "))
    separator = ""
    for item in items:
        yield separator + "\n" + indent(item, " " * (depth + 2))
        separator = ","
    yield ("\n" + " " * depth if separator else "") + after[1:]
