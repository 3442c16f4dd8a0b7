"""Tags: words that a user sticks to a version."""

from __future__ import annotations

from collections.abc import Iterable

from automl_tl_registry.index import find, locate
from automl_tl_registry.journal import Entry, append
from automl_tl_registry.names import Reference, checked_tag
from automl_tl_registry.store import Store
from automl_tl_registry.values import ModelVersion

__all__ = ["tag"]


def tag(store: Store, ref: str, *, add: Iterable[str], remove: Iterable[str], actor: str) -> ModelVersion:
    """The version with ``add`` stuck to it and ``remove`` taken off; no event where nothing changes."""
    reference = Reference.parse(ref)
    wanted, unwanted = {checked_tag(each) for each in add}, {checked_tag(each) for each in remove}
    store.check_not_orphaned()
    store.database.read(lambda connection: locate(connection, reference))
    with store.database.writing() as connection:
        name, version = locate(connection, reference)
        present = set(find(connection, Reference(name, version)).tags)
        added, removed = sorted(wanted - unwanted - present), sorted(unwanted & present)
        connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", [(name, version, each) for each in added])
        query = "DELETE FROM tags WHERE name = ? AND version = ? AND tag = ?"
        connection.executemany(query, [(name, version, each) for each in removed])
        if added or removed:
            detail = {"added": added, "removed": removed}
            append(connection, Entry("tagged", actor, name, version, detail=detail), store.clock())
        tagged = find(connection, Reference(name, version))
    store.mirror.follow(store.database)
    return tagged
