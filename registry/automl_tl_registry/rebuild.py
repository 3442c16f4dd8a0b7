"""``rebuild``: restore a lost or damaged database from the blobs and the mirror of the log.

* Versions and their facts come from the manifest blobs, each checked by its digest.
* Order, aliases, tags, deletions and history come from the longest intact log: the database's if readable, or
  ``events.jsonl``, each up to its first damaged event. Without either, every manifest becomes a version, and aliases, tags
  and deletions are unknown.
* An intact manifest that the log does not mention becomes a version (event ``recovered``). A publication that died during
  its commit may thus appear; that is better than losing one.

What could not be restored is listed. A database that can be opened is refilled inside one transaction; otherwise it is kept
beside the new one as ``registry.sqlite.damaged-...``.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Final

from automl_tl_registry.database import APPEND_ONLY
from automl_tl_registry.errors import DamagedDatabaseError, IntegrityError
from automl_tl_registry.index import add_version, set_alias
from automl_tl_registry.journal import Entry, append, broken_at, insert, load_events, replay, stamp
from automl_tl_registry.manifests import is_manifest, read_manifest
from automl_tl_registry.store import Store
from automl_tl_registry.values import Event, Manifest, Value

__all__ = ["Rebuilt", "rebuild"]

TABLES: Final = ("tags", "aliases", "version_blobs", "versions", "manifests", "models", "events")


class Rebuilt(Value):
    """Result of ``rebuild``: what was restored, and what could not be."""

    num_versions: int
    num_aliases: int
    num_events: int
    recovered: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass
class _Sources:
    """Sources to rebuild from."""

    manifests: dict[str, Manifest] = field(default_factory=dict)  # by digest
    events: list[Event] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def rebuild(store: Store, *, actor: str) -> Rebuilt:
    """Rebuild the database; safe to repeat. See ``Registry.rebuild``."""
    if not store.root.is_dir():
        raise DamagedDatabaseError(store.database.path, f"there is no folder {store.root} to rebuild from")
    sources = _Sources()
    _gather_manifests(store, sources)
    mirrored = _intact(list(store.mirror.events()), "events.jsonl", sources)
    if not _is_usable(store):
        _set_aside(store)
        store.database.ensure()
    with store.database.writing() as connection:
        logged = _intact(list(load_events(connection)), "the database", sources)
        sources.events = max(logged, mirrored, key=len)
        _clear(connection)
        rebuilt = _fill(store, connection, sources, actor)
    _renew_mirror(store, sources.events)
    return rebuilt


def _gather_manifests(store: Store, sources: _Sources) -> None:
    for digest, _ in store.blobs.all():
        path = store.blobs.path(digest)
        if is_manifest(path):
            try:
                store.blobs.checked(digest)
                sources.manifests[digest] = read_manifest(path)
            except IntegrityError as error:
                sources.problems.append(str(error))


def _intact(events: list[Event], where: str, sources: _Sources) -> list[Event]:
    """Return the events up to the first that breaks the hash chain."""
    broken = broken_at(events)
    if broken is None:
        return events
    sources.problems.append(f"{where}: {broken[1]}; events from {broken[0]} on were ignored")
    return list(takewhile(lambda event: event.seq < broken[0], events))


def _is_usable(store: Store) -> bool:
    if not store.database.path.exists():
        return False
    try:
        with store.database.writing() as connection:
            return bool(connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok")
    except (IntegrityError, sqlite3.DatabaseError, OSError):
        return False


def _set_aside(store: Store) -> None:
    """Rename the remains of the old database; its journal first, so that the new one does not apply it."""
    database = store.database.path
    suffix = f".damaged-{stamp(store.clock())[:19].replace(':', '')}"
    for name in (f"{database.name}-journal", database.name):
        old = database.with_name(name)
        if old.exists():
            store.disk.rename(old, _free(old.with_name(name + suffix)))


def _free(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number, candidate = number + 1, path.with_name(f"{path.name}-{number}")
    return candidate


def _clear(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TRIGGER events_never_change")
    connection.execute("DROP TRIGGER events_never_leave")
    for table in TABLES:
        connection.execute(f"DELETE FROM {table}")
    for statement in APPEND_ONLY:
        connection.execute(statement)


def _fill(store: Store, connection: sqlite3.Connection, sources: _Sources, actor: str) -> Rebuilt:
    """Write the log, append losses and recoveries, and fill the tables from its replay."""
    for event in sources.events:
        insert(connection, event)
    _write_off(store, connection, sources, actor)
    recovered = _recover(store, connection, sources, actor)
    detail = {"recovered": recovered, "num_problems": len(sources.problems)}
    last = append(connection, Entry("rebuilt", actor, detail=detail), store.clock())
    events = list(load_events(connection))
    state, places = replay(events), {}
    for event in events:
        if "manifest" in event.detail and event.verb != "deleted":
            places[event.name, event.version] = event.seq
    for key, digest in sorted(state.versions.items(), key=lambda item: places[item[0]]):
        add_version(connection, sources.manifests[digest], digest, places[key])
    for (name, alias), version in state.aliases.items():
        set_alias(connection, name, alias, version)
    connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", sorted(state.tags))
    connection.executemany("INSERT OR REPLACE INTO models VALUES (?, ?)", sorted(state.last_version.items()))
    return Rebuilt(
        num_versions=len(state.versions),
        num_aliases=len(state.aliases),
        num_events=last.seq,
        recovered=tuple(recovered),
        problems=tuple(sources.problems),
    )


def _write_off(store: Store, connection: sqlite3.Connection, sources: _Sources, actor: str) -> None:
    """Record the deletion of versions without a manifest, and of their aliases; the log keeps them."""
    state = replay(sources.events)
    lost = {key: digest for key, digest in state.versions.items() if not _fits(key, sources.manifests.get(digest))}
    detail = {"reason": "its manifest was lost"}
    for (name, alias), version in state.aliases.items():
        if (name, version) in lost:
            append(connection, Entry("demoted", actor, name, None, alias, detail | {"from": version}), store.clock())
    for (name, version), digest in lost.items():
        sources.problems.append(f"{name}@{version} is lost: its manifest {digest} is missing")
        append(connection, Entry("deleted", actor, name, version, detail=detail | {"manifest": digest}), store.clock())


def _fits(key: tuple[str, int], manifest: Manifest | None) -> bool:
    return manifest is not None and (manifest.name, manifest.version) == key


def _recover(store: Store, connection: sqlite3.Connection, sources: _Sources, actor: str) -> list[str]:
    """Restore versions that no event mentions although all of their files exist."""
    mentioned = {event.detail.get("manifest") for event in sources.events}
    taken = {(event.name, event.version) for event in sources.events}
    recovered = []
    unmentioned = {digest: manifest for digest, manifest in sources.manifests.items() if digest not in mentioned}
    for digest, manifest in sorted(unmentioned.items(), key=lambda item: item[1].created_at, reverse=True):
        ref, key = f"{manifest.name}@{manifest.version}", (manifest.name, manifest.version)
        if key in taken:
            sources.problems.append(f"{ref}: manifest {digest} reuses a version number; `tl registry gc` removes it")
        elif not all(store.blobs.path(blob.digest).exists() for blob in manifest.blobs.values()):
            sources.problems.append(f"{ref}: files of manifest {digest} are missing; it was skipped")
        else:
            taken.add(key)
            recovered.append((key, digest))
    for (name, version), digest in reversed(recovered):  # the oldest first
        append(connection, Entry("recovered", actor, name, version, detail={"manifest": digest}), store.clock())
    return [f"{name}@{version}" for (name, version), _ in reversed(recovered)]


def _renew_mirror(store: Store, log: list[Event]) -> None:
    """Update the mirror; one that differs from the log is kept beside the new one."""
    if store.mirror.path.exists() and list(store.mirror.events()) != log[: store.mirror.num_lines()]:
        suffix = f".damaged-{stamp(store.clock())[:19].replace(':', '')}"
        store.disk.rename(store.mirror.path, _free(store.mirror.path.with_name(store.mirror.path.name + suffix)))
    store.mirror.follow(store.database)
