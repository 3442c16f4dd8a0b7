"""Publish a version: all or nothing, also with concurrent processes and when one dies in between.

1. Check. The files are read, checked and hashed. Nothing is written yet.
2. Draft. One transaction creates a staging folder, locks a file in it and claims the digests. From then on ``gc`` keeps these
   blobs: it finds and removes unclaimed blobs inside a write transaction too, so it either sees the claim, or has finished
   before the claim and the blob is copied again. The operating system releases the lock when the process dies; by this, ``gc``
   distinguishes an abandoned draft from one in progress.
3. Copy. Missing blobs are copied, fsynced and renamed into place. ``verify`` is called with their paths.
4. Commit. One transaction takes the version number, writes the manifest blob, inserts version and event, and drops the draft.
   The version exists from this commit on; no query shows any of it earlier.
5. Clean up. The event is mirrored and the staging folder removed. A crash here leaves work only for ``gc`` or the next writer.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from automl_tl_registry import contents
from automl_tl_registry.contents import check_role
from automl_tl_registry.errors import RegistryError
from automl_tl_registry.journal import Entry, append
from automl_tl_registry.queries import add_version, find, resolve, take_number
from automl_tl_registry.storage import chunks_of, digest_of, file_lock
from automl_tl_registry.store import Store
from automl_tl_registry.values import Blob, Facts, Manifest, ModelVersion, Reference, VersionView, checked_name, checked_role

LOCK_NAME: Final = "lock"
_log = logging.getLogger(__name__)


def publish(  # noqa: PLR0913 - each is a fact of the version
    store: Store,
    name: str,
    sources: Mapping[str, Path],
    facts: Facts,
    *,
    actor: str,
    parent: str | None,
    verify: Callable[[VersionView], object] | None,
) -> ModelVersion:
    """Publish a version. See ``Registry.publish``."""
    checked_name(name)
    blobs: dict[str, Blob] = {}
    for role, path in sources.items():
        check_role(checked_role(role), path, facts)
        blobs[role] = digest_of(chunks_of(path))
    parent = None if parent is None else resolve(store, parent).ref
    with drafted(store, name, blobs) as folder:
        for role, blob in blobs.items():
            store.blobs.receive(chunks_of(sources[role]), blob, staging=folder)
        if verify is not None:
            verify(VersionView(name, None, facts, {role: store.blobs.path(blob.digest) for role, blob in blobs.items()}))
        with store.database.writing() as connection:
            number, now = take_number(connection, name), store.clock()
            manifest = Manifest(name=name, version=number, created_at=now, actor=actor, parent=parent, blobs=blobs, facts=facts)
            return enter(store, connection, folder, manifest)


def enter(
    store: Store, connection: sqlite3.Connection, folder: Path, manifest: Manifest, *, imported_by: str | None = None
) -> ModelVersion:
    """Write manifest blob, event and rows of a version, drop its draft, and return the version.

    Args:
        store: the registry.
        connection: open write transaction; the version is visible after its commit.
        folder: staging folder of the draft.
        manifest: the complete manifest.
        imported_by: actor of an import; None for a publication by ``manifest.actor``.
    """
    blob = store.blobs.put(contents.encode_manifest(manifest), staging=folder)
    detail = {"manifest": blob.digest, "blobs": {role: file.digest for role, file in manifest.blobs.items()}}
    verb, actor = ("published", manifest.actor) if imported_by is None else ("imported", imported_by)
    event = append(connection, Entry(verb, actor, manifest.name, manifest.version, detail=detail), store.clock())
    add_version(connection, manifest, blob.digest, event.seq)
    connection.execute("DELETE FROM drafts WHERE id = ?", [folder.name])
    return find(connection, Reference(manifest.name, manifest.version))


@contextmanager
def drafted(store: Store, name: str, blobs: Mapping[str, Blob]) -> Iterator[Path]:
    """Create a staging folder and claim blobs; if the block raises, remove the blobs that only it needed.

    Args:
        store: the registry.
        name: model name.
        blobs: digests and sizes of the version's files, by role.

    Yields:
        The locked staging folder; its name is the id of the draft in the database.
    """
    store.check_not_orphaned()
    store.database.ensure()
    store.disk.make_folder(store.staging)
    folder = store.staging / os.urandom(16).hex()
    claims = sorted({blob.digest for blob in blobs.values()})
    with ExitStack() as stack:
        stack.callback(_logging_errors, partial(_remove_if_made, store, folder))
        with store.database.writing() as connection:  # inside, so that gc never sees an unlocked folder
            store.disk.make_folder(folder)
            stack.enter_context(file_lock(folder / LOCK_NAME))
            connection.execute("INSERT INTO drafts VALUES (?, ?, ?)", [folder.name, name, store.clock().isoformat()])
            connection.executemany("INSERT INTO draft_blobs VALUES (?, ?)", [(folder.name, digest) for digest in claims])
        try:
            yield folder
        except BaseException:
            for file in folder.glob("*"):  # first, so that a full disk has space for the transaction
                if file.name != LOCK_NAME:
                    _logging_errors(partial(store.disk.remove, file))
            _logging_errors(partial(_abandon, store, folder.name, claims))
            raise
    store.mirror.follow(store.database)


def _remove_if_made(store: Store, folder: Path) -> None:
    if folder.exists():  # on a read-only file system, removing what is not there fails as well
        store.disk.remove(folder)


def _logging_errors(cleanup: Callable[[], object]) -> None:
    """Call ``cleanup``; log its errors, because they must not hide another error or undo a success."""
    try:
        cleanup()
    except (OSError, RegistryError) as error:
        _log.warning("cleanup failed; run `tl registry gc`: %s", error)


def _abandon(store: Store, draft: str, claims: Iterable[str]) -> None:
    """Drop a draft and the blobs that only it needed."""
    with store.database.writing() as connection:
        connection.execute("DELETE FROM drafts WHERE id = ?", [draft])
        for digest in set(claims) - referenced(connection):
            store.blobs.remove(digest)


def referenced(connection: sqlite3.Connection, *, without_drafts: Collection[str] = ()) -> set[str]:
    """Return the sha256 digests needed by a version or a draft.

    Args:
        connection: open transaction.
        without_drafts: ids of drafts whose claims do not count.
    """
    needed = {
        row[0] for row in connection.execute("SELECT digest FROM version_blobs UNION SELECT manifest_digest FROM versions")
    }
    claims = connection.execute("SELECT draft, digest FROM draft_blobs")
    return needed | {row["digest"] for row in claims if row["draft"] not in without_drafts}
