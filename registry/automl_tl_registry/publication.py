"""Publishing a version: all or nothing, also when several processes do it, and when one dies in the middle.

1. The files are read, judged and hashed. Nothing is written yet.
2. *Draft.* One transaction makes a staging folder, takes the lock on a file in it and claims the digests. From here on ``gc``
   leaves these blobs alone: it looks for unclaimed blobs and removes them inside a write transaction too, so it
   either sees the claim, or has finished before the claim and the blob is copied again. The lock is let go by the operating
   system when the process dies, and so ``gc`` tells an abandoned draft from one in progress.
3. Blobs that aren't there yet are copied, fsynced and renamed into place. ``verify`` is called with their paths.
4. *Commit.* One transaction takes the number, writes the manifest blob, enters version and event and drops the draft. The
   version exists from the commit on; before it, no question to the registry shows anything.
5. The event goes to the mirror and the staging folder away. A crash here leaves work for ``gc`` or the next writer only.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from automl_tl_registry import manifests
from automl_tl_registry.blobs import digest_of
from automl_tl_registry.disk import chunks_of, file_lock
from automl_tl_registry.errors import RegistryError
from automl_tl_registry.evidence import check_role
from automl_tl_registry.index import add_version, find, locate, take_number
from automl_tl_registry.journal import Entry, append
from automl_tl_registry.names import Reference, checked_name, checked_role
from automl_tl_registry.store import Store
from automl_tl_registry.values import Blob, Facts, Manifest, ModelVersion, VersionView

__all__ = ["LOCK_NAME", "Draft", "Offer", "drafted", "publish", "referenced"]

LOCK_NAME: Final = "lock"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offer:
    """What shall become a version."""

    name: str
    sources: Mapping[str, Path]
    facts: Facts
    actor: str
    parent: str | None = None
    move: bool = False
    verify: Callable[[VersionView], object] | None = None


@dataclass(frozen=True)
class Draft:
    """A publication in progress."""

    folder: Path

    @property
    def id(self) -> str:
        """Name of the draft in the database: that of its folder."""
        return self.folder.name


def publish(store: Store, offer: Offer) -> ModelVersion:
    """The new version, visible to all from now on.

    Raises:
        RegistryError: nothing was published.
        Exception: whatever ``offer.verify`` raised; nothing was published.
    """
    checked_name(offer.name)
    blobs = {checked_role(role): _judged(role, path, offer.facts) for role, path in offer.sources.items()}
    parent = _parent(store, offer.parent)
    with drafted(store, offer.name, blobs) as draft:
        for role, blob in blobs.items():
            store.blobs.adopt(offer.sources[role], blob, staging=draft.folder, link=offer.move)
        if offer.verify is not None:
            paths = {role: store.blobs.path(blob.digest) for role, blob in blobs.items()}
            offer.verify(VersionView(offer.name, None, offer.facts, paths))
        with store.database.writing() as connection:
            manifest = Manifest(
                name=offer.name,
                version=take_number(connection, offer.name),
                created_at=store.clock(),
                actor=offer.actor,
                parent=parent,
                blobs=blobs,
                facts=offer.facts,
            )
            version = enter(store, connection, draft, manifest)
    if offer.move:
        for path in offer.sources.values():
            if not path.resolve().is_relative_to(store.root.resolve()):  # a blob of ours is not the caller's to give away
                _quietly(partial(path.unlink, missing_ok=True))
    return version


def _judged(role: str, path: Path, facts: Facts) -> Blob:
    check_role(role, path, facts)
    return digest_of(chunks_of(path))


def _parent(store: Store, parent: str | None) -> str | None:
    if parent is None:
        return None
    name, version = store.database.read(lambda connection: locate(connection, Reference.parse(parent)))
    return f"{name}@{version}"


def enter(
    store: Store, connection: sqlite3.Connection, draft: Draft, manifest: Manifest, *, imported_by: str | None = None
) -> ModelVersion:
    """Write the manifest blob, the event and the rows of a version; drop the draft. Visible with the commit."""
    blob = store.blobs.put(manifests.encode(manifest), staging=draft.folder)
    detail = {"manifest": blob.digest, "blobs": {role: each.digest for role, each in manifest.blobs.items()}}
    verb, actor = ("published", manifest.actor) if imported_by is None else ("imported", imported_by)
    event = append(connection, Entry(verb, actor, manifest.name, manifest.version, detail=detail), store.clock())
    add_version(connection, manifest, blob.digest, event.seq)
    connection.execute("DELETE FROM drafts WHERE id = ?", [draft.id])
    return find(connection, Reference(manifest.name, manifest.version))


@contextmanager
def drafted(store: Store, name: str, blobs: Mapping[str, Blob]) -> Iterator[Draft]:
    """Staging folder and claims for ``blobs``. When the block raises, what it brought in is taken away again."""
    store.check_not_orphaned()
    store.database.ensure()
    store.disk.make_folder(store.staging)
    draft = Draft(store.staging / os.urandom(16).hex())
    claims = sorted({blob.digest for blob in blobs.values()})
    with ExitStack() as stack:
        stack.callback(_quietly, partial(store.disk.remove, draft.folder))
        with store.database.writing() as connection:  # inside, so that gc never sees a folder whose lock isn't taken yet
            store.disk.make_folder(draft.folder)
            stack.enter_context(file_lock(draft.folder / LOCK_NAME))
            connection.execute("INSERT INTO drafts VALUES (?, ?, ?)", [draft.id, name, store.clock().isoformat()])
            connection.executemany("INSERT INTO draft_blobs VALUES (?, ?)", [(draft.id, digest) for digest in claims])
        try:
            yield draft
        except BaseException:
            _quietly(partial(_abandon, store, draft, claims))
            raise
    store.mirror.follow(store.database)


def _quietly(tidy: Callable[[], object]) -> None:
    """Call ``tidy``; what it can't do is left to ``gc``, and must not hide an error or undo a success."""
    try:
        tidy()
    except (OSError, RegistryError) as error:
        _log.warning("left to `tl registry gc`: %s", error)


def _abandon(store: Store, draft: Draft, claims: Iterable[str]) -> None:
    """Drop the draft and the blobs that only it needed."""
    with store.database.writing() as connection:
        connection.execute("DELETE FROM drafts WHERE id = ?", [draft.id])
        for digest in set(claims) - referenced(connection):
            store.blobs.remove(digest)


def referenced(connection: sqlite3.Connection, *, without_drafts: Collection[str] = ()) -> set[str]:
    """Digests that a version or a draft needs."""
    needed = {
        row[0] for row in connection.execute("SELECT digest FROM version_blobs UNION SELECT manifest_digest FROM versions")
    }
    claims = connection.execute("SELECT draft, digest FROM draft_blobs")
    return needed | {row["digest"] for row in claims if row["draft"] not in without_drafts}
