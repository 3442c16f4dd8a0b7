"""Groups that share a member become one group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

__all__ = ["join"]


def join(members: Iterable[str], groups: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """``members``, each in exactly one tuple, together with all that share a group with it.

    Names in ``groups`` that are no members are passed over. Sorted, whatever the order of the input.
    """
    parent = {member: member for member in members}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for group in groups:
        known = [name for name in group if name in parent]
        for name in known[1:]:
            parent[root(name)] = root(known[0])
    found: dict[str, list[str]] = defaultdict(list)
    for member in sorted(parent):
        found[root(member)].append(member)
    return sorted(tuple(together) for together in found.values())
