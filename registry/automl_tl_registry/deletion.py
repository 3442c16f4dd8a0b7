"""Delete versions (``delete``, ``prune``) and remove the files that nothing needs any more (``gc``).

Deleting a version leaves its blobs to ``gc``, its number unused and its events in the log. A version that has an alias, or had
one within the last 30 days, is never deleted: a rollback would need it.

``gc`` finds and removes unclaimed blobs inside one write transaction. A publication claims its digests in a write transaction
too, so it cannot rely on a blob that is being removed (see ``publication``). A draft is abandoned when the operating system
has released its lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from automl_tl_registry.errors import ConflictError, InvalidNameError
from automl_tl_registry.journal import Entry, append, load_events, stamp, tenures
from automl_tl_registry.publication import LOCK_NAME, referenced
from automl_tl_registry.queries import find, resolve
from automl_tl_registry.storage import is_locked
from automl_tl_registry.store import Store
from automl_tl_registry.values import Blob, ModelVersion, Reference, Value, checked_name, checked_text

GRACE: Final = timedelta(days=30)


class Pruned(Value):
    """Versions that ``prune`` deleted or would delete; ``kept`` gives the reason for each of the others."""

    deleted: tuple[str, ...]
    kept: dict[str, str]
    dry_run: bool = False


def delete(store: Store, ref: str, *, actor: str, reason: str | None) -> ModelVersion:
    """Delete a version. See ``Registry.delete``."""
    reference = numbered(ref, reason)
    resolve(store, ref)  # a reference to nothing must not open a transaction
    with store.database.writing() as connection:
        version = find(connection, reference)
        _remove(connection, deletion_of(connection, version, actor, reason, store.clock()), store.clock())
    store.mirror.follow(store.database)
    return version


def numbered(ref: str, reason: str | None) -> Reference:
    """Return the reference of a version to delete; raise InvalidNameError if it has no number, or the reason is unusable.

    Args:
        ref: ``name@3``.
        reason: why.
    """
    reference = Reference.parse(ref)
    if reference.version is None:
        raise InvalidNameError(ref, what="deleted", expected="one version by its number, as NAME@VERSION")
    if reason is not None:
        checked_text(reason, what="a reason")
    return reference


def deletion_of(connection: sqlite3.Connection, version: ModelVersion, actor: str, reason: str | None, now: datetime) -> Entry:
    """Return the entry of the log that deletes a version.

    Args:
        connection: open transaction.
        version: the version.
        actor: who deletes it.
        reason: why.
        now: time by the clock.

    Raises:
        ConflictError: the version has, or recently had, an alias.
    """
    protected = _protected(connection, version.name, now)
    if version.version in protected:
        raise ConflictError(f"{version.ref} cannot be deleted: {protected[version.version]}.")
    detail = ({"reason": reason} if reason else {}) | {"manifest": version.manifest_digest}
    return Entry("deleted", actor, version.name, version.version, detail=detail)


def _remove(connection: sqlite3.Connection, deletion: Entry, now: datetime) -> None:
    connection.execute("DELETE FROM versions WHERE name = ? AND version = ?", [deletion.name, deletion.version])
    connection.execute("DELETE FROM manifests WHERE digest NOT IN (SELECT manifest_digest FROM versions)")
    append(connection, deletion, now)


def _protected(connection: sqlite3.Connection, name: str, now: datetime) -> dict[int, str]:
    """Return the versions of a model that must not be deleted, with the reason."""
    protected: dict[int, str] = {}
    for tenure in tenures(load_events(connection, "name = ? AND alias IS NOT NULL", [name])):
        if tenure.until is None:
            protected[tenure.version] = f"it is {tenure.alias}; move or demote the alias, then wait {GRACE.days} days"
        elif tenure.until > now - GRACE:
            free = stamp(tenure.until + GRACE)[:16].replace("T", " ")
            protected.setdefault(
                tenure.version, f"it was {tenure.alias} until {stamp(tenure.until)[:10]}; it can be deleted from {free} UTC"
            )
    return protected


def prune(store: Store, name: str, *, keep_best: int, keep_last: int, dry_run: bool, actor: str) -> Pruned:
    """Delete versions that are neither among the best by accuracy, nor the latest, nor protected. See ``Registry.prune``."""
    checked_name(name)
    store.check_not_orphaned()
    plan = store.database.read(lambda connection: _plan(connection, name, (keep_best, keep_last), store.clock()))
    if dry_run or not plan.deleted:
        return plan.model_copy(update={"dry_run": dry_run})
    with store.database.writing() as connection:
        now, reason = store.clock(), f"pruned: keep best {keep_best}, keep last {keep_last}"
        plan = _plan(connection, name, (keep_best, keep_last), now)
        for ref in plan.deleted:
            version = find(connection, Reference.parse(ref))
            _remove(connection, deletion_of(connection, version, actor, reason, now), now)
    store.mirror.follow(store.database)
    return plan


def _plan(connection: sqlite3.Connection, name: str, keep: tuple[int, int], now: datetime) -> Pruned:
    query = "SELECT version FROM versions WHERE name = ? ORDER BY"
    best = [row[0] for row in connection.execute(f"{query} accuracy DESC, version DESC", [name])]
    last = [row[0] for row in connection.execute(f"{query} version DESC", [name])]
    if not last:
        find(connection, Reference(name))  # raises an error that lists the known names
    why = {number: f"among the best {keep[0]}" for number in best[: keep[0]]}
    why |= {number: f"among the last {keep[1]}" for number in last[: keep[1]]}
    why |= _protected(connection, name, now)
    gone = tuple(f"{name}@{number}" for number in sorted(last) if number not in why)
    return Pruned(deleted=gone, kept={f"{name}@{number}": why[number] for number in sorted(last) if number in why})


class Collected(Value):
    """Result of ``gc``: what was removed or would be."""

    blobs: tuple[Blob, ...] = ()
    num_abandoned: int = 0
    num_in_progress: int = 0
    dry_run: bool = False

    @property
    def freed_bytes(self) -> int:
        """Total size of the blobs."""
        return sum(blob.size_bytes for blob in self.blobs)


def collect(store: Store, *, dry_run: bool, actor: str) -> Collected:
    """Remove unclaimed blobs and abandoned drafts. See ``Registry.gc``."""
    store.check_not_orphaned()
    if dry_run or not store.database.path.exists():
        return store.database.read(lambda connection: _survey(store, connection)).model_copy(update={"dry_run": dry_run})
    with store.database.writing() as connection:
        collected = _survey(store, connection)
        for folder in _abandoned(store):
            connection.execute("DELETE FROM drafts WHERE id = ?", [folder.name])
            store.disk.remove(folder)
        connection.executemany("DELETE FROM drafts WHERE id = ?", [(draft,) for draft in _lost_drafts(store, connection)])
        for blob in collected.blobs:
            store.blobs.remove(blob.digest)
        _remove_signatures(store, connection)
        if collected.blobs:
            detail = {"num_blobs": len(collected.blobs), "freed_bytes": collected.freed_bytes}
            append(connection, Entry("collected", actor, detail=detail), store.clock())
    for draft in store.root.glob("registry.sqlite.new-*"):
        store.disk.remove(draft)
    store.mirror.follow(store.database)
    return collected


def _remove_signatures(store: Store, connection: sqlite3.Connection) -> None:
    """Remove the signatures of deleted versions, and what a killed process left of one."""
    needed = {f"{row[0]}.json" for row in connection.execute("SELECT manifest_digest FROM versions")}
    for path in store.signatures.glob("*"):
        if path.name not in needed:
            store.disk.remove(path)


def _survey(store: Store, connection: sqlite3.Connection) -> Collected:
    abandoned = list(_abandoned(store))
    lost = {folder.name for folder in abandoned} | set(_lost_drafts(store, connection))
    needed = referenced(connection, without_drafts=lost)
    unclaimed = (Blob(digest=digest, size_bytes=size) for digest, size in store.blobs.all() if digest not in needed)
    drafts = {row[0] for row in connection.execute("SELECT id FROM drafts")}
    return Collected(blobs=tuple(unclaimed), num_abandoned=len(lost), num_in_progress=len(drafts - lost))


def _abandoned(store: Store) -> Iterator[Path]:
    """Yield staging folders whose process has ended."""
    if store.staging.is_dir():
        for folder in sorted(store.staging.iterdir()):
            if not is_locked(folder / LOCK_NAME):
                yield folder


def _lost_drafts(store: Store, connection: sqlite3.Connection) -> list[str]:
    """Return the ids of drafts without a staging folder."""
    rows = connection.execute("SELECT id FROM drafts ORDER BY id")
    return [row[0] for row in rows if not (store.staging / row[0]).exists()]
