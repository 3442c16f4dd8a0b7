"""``gc``: removing what no version and no publication in progress needs.

Unclaimed blobs are looked for and removed inside one write transaction. A publication claims its digests in a write
transaction too, so it can't count on a blob that is being removed (see ``publishing``). Versions are never removed here, so
nothing that is or lately was aliased can be. A draft is abandoned when the operating system has let go of its lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from automl_tl_registry.disk import is_locked
from automl_tl_registry.journal import Entry, append
from automl_tl_registry.publishing import LOCK_NAME, referenced
from automl_tl_registry.store import Store
from automl_tl_registry.values import Blob, Value

__all__ = ["Collected", "collect"]


class Collected(Value):
    """What ``gc`` removed, or would."""

    blobs: tuple[Blob, ...] = ()
    num_abandoned: int = 0
    num_in_progress: int = 0
    dry_run: bool = False

    @property
    def freed_bytes(self) -> int:
        """Size of the blobs."""
        return sum(blob.size_bytes for blob in self.blobs)


def collect(store: Store, *, dry_run: bool, actor: str) -> Collected:
    """Remove unclaimed blobs and abandoned drafts; with ``dry_run`` only say which."""
    store.check_not_orphaned()
    if dry_run or not store.database.path.exists():
        return store.database.read(lambda connection: _survey(store, connection)).model_copy(update={"dry_run": dry_run})
    with store.database.writing() as connection:
        found = _survey(store, connection)
        for folder in _abandoned(store):
            connection.execute("DELETE FROM drafts WHERE id = ?", [folder.name])
            store.disk.remove(folder)
        _forget_lost_drafts(store, connection)
        for blob in found.blobs:
            store.blobs.remove(blob.digest)
        if found.blobs:
            detail = {"num_blobs": len(found.blobs), "freed_bytes": found.freed_bytes}
            append(connection, Entry("collected", actor, detail=detail), store.clock())
    for draft in store.root.glob("registry.sqlite.new-*"):
        store.disk.remove(draft)
    store.mirror.follow(store.database)
    return found


def _survey(store: Store, connection: sqlite3.Connection) -> Collected:
    abandoned = list(_abandoned(store))
    lost = {folder.name for folder in abandoned} | set(_lost_drafts(store, connection))
    needed = referenced(connection, without_drafts=lost)
    unclaimed = (Blob(digest=digest, size_bytes=size) for digest, size in store.blobs.all() if digest not in needed)
    drafts = {row[0] for row in connection.execute("SELECT id FROM drafts")}
    return Collected(blobs=tuple(unclaimed), num_abandoned=len(lost), num_in_progress=len(drafts - lost))


def _abandoned(store: Store) -> Iterator[Path]:
    """Staging folders whose process is gone."""
    if store.staging.is_dir():
        for folder in sorted(store.staging.iterdir()):
            if not is_locked(folder / LOCK_NAME):
                yield folder


def _lost_drafts(store: Store, connection: sqlite3.Connection) -> list[str]:
    """Drafts whose staging folder is gone."""
    rows = connection.execute("SELECT id FROM drafts ORDER BY id")
    return [row[0] for row in rows if not (store.staging / row[0]).exists()]


def _forget_lost_drafts(store: Store, connection: sqlite3.Connection) -> None:
    connection.executemany("DELETE FROM drafts WHERE id = ?", [(each,) for each in _lost_drafts(store, connection)])
