"""Read the models of a shared registry: their logs, their manifests, and queries on a copy of both in memory."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
from typing import TypeVar

from automl_tl_registry import contents, queries
from automl_tl_registry.errors import (
    ConflictError,
    DamagedManifestError,
    DamagedObjectError,
    MissingObjectError,
    NoExclusiveCreateError,
    NotFoundError,
    nearest,
)
from automl_tl_registry.exchange import checked_manifest
from automl_tl_registry.journal import append, copied, load_events, replay
from automl_tl_registry.remote_store import RemoteStore, read_object
from automl_tl_registry.shared_log import CREATIONS, READERS, model_names, read_log, superseded
from automl_tl_registry.storage import digest_of
from automl_tl_registry.store import Store, memory_database
from automl_tl_registry.values import Event, Manifest, ModelVersion, Reference

T = TypeVar("T")


class SharedModels:
    """The models of a shared registry, read from a local one."""

    def __init__(self, store: Store, remote: RemoteStore) -> None:
        """Share between a local registry and a shared one; nothing is read yet."""
        self.store, self.remote = store, remote
        self._logs: dict[str, list[Event]] = {}  # as they were read; they only grow

    def log(self, name: str) -> list[Event]:
        """Return the log of a model; empty if there is none."""
        self._logs[name] = read_log(self.remote, name, self._logs.get(name, ()))
        return self._logs[name]

    def existing_log(self, name: str) -> list[Event]:
        """Return the log of a model; raise NotFoundError if there is none."""
        events = self.log(name)
        if not events:
            known = model_names(self.remote)
            hint = nearest(name, known, f"It has: {', '.join(known[:10])}." if known else "It is empty.")
            raise NotFoundError(f"There is no model named {name!r} in {self.remote.url}. {hint}")
        return events

    def manifests(self, events: Sequence[Event]) -> dict[str, Manifest]:
        """Return the manifests of the versions in a log by digest; every digest is checked."""
        wanted = {digest: key for key, digest in replay(events).versions.items()}
        with ThreadPoolExecutor(READERS) as pool:
            return dict(zip(wanted, pool.map(lambda item: self._manifest(*item), wanted.items()), strict=True))

    def _manifest(self, digest: str, key: tuple[str, int]) -> Manifest:
        if self.store.blobs.is_sound(digest):
            return contents.read_manifest(self.store.blobs.path(digest))
        return read_shared_manifest(self.remote, digest, key)

    @contextmanager
    def copy(self, logs: Mapping[str, Sequence[Event]]) -> Iterator[sqlite3.Connection]:
        """Yield a database in memory with the models whose logs are given by name."""
        with closing(memory_database()) as connection:
            for name, events in logs.items():
                merge(connection, name, events, self.manifests(events))
            try:
                yield connection
            except NotFoundError as error:  # its advice is about the local registry
                raise NotFoundError(re.sub("`(tl registry [^`]+)`", rf"`\1 --remote {self.remote.url}`", str(error))) from error

    def read(self, name: str | None, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query of ``queries`` on the shared registry and return its result.

        Args:
            name: only this model; None for all.
            query: gets a connection to a copy in memory.

        Raises:
            RemoteError: the store cannot be reached.
            DamagedObjectError: a log or a manifest is damaged.
        """
        names = model_names(self.remote) if name is None else [name]
        with self.copy({model: self.log(model) for model in names}) as connection:
            return query(connection)

    def find(self, events: Sequence[Event], reference: Reference) -> ModelVersion:
        """Return the version that a reference points to.

        Args:
            events: the log of the model.
            reference: a version, an alias or a bare name.
        """
        with self.copy({reference.name: events}) as connection:
            return queries.find(connection, reference)

    def check_exclusive(self) -> None:
        """Raise NoExclusiveCreateError if two processes could append the same entry to a log."""
        if not self.remote.creates_exclusively():
            raise NoExclusiveCreateError(self.remote.url)


def read_shared_manifest(remote: RemoteStore, digest: str, key: tuple[str, int]) -> Manifest:
    """Return a manifest from a shared registry.

    Args:
        remote: the shared registry.
        digest: sha256 of the manifest blob.
        key: name and number of its version.

    Raises:
        DamagedObjectError: it is missing, damaged, or of another version.
    """
    url, ref = f"{remote.url}/{blob_key(digest)}", f"{key[0]}@{key[1]}"
    try:
        content = read_object(remote, blob_key(digest))
    except MissingObjectError as error:
        raise DamagedObjectError(url, f"the manifest of {ref} is missing") from error
    if (actual := digest_of([content]).digest) != digest:
        raise DamagedObjectError(url, f"expected sha256 {digest} for the manifest of {ref}, found {actual}")
    manifest = checked_manifest(content, url)
    if (manifest.name, manifest.version) != key:
        raise DamagedObjectError(url, f"it is the manifest of {manifest.name}@{manifest.version}, not of {ref}")
    return manifest


def blob_key(digest: str) -> str:
    """Return the key of a file or manifest."""
    return f"blobs/sha256/{digest[:2]}/{digest}"


def signature_key(digest: str) -> str:
    """Return the key of the signature of the version whose manifest has this digest."""
    return f"signatures/{digest}.json"


def mover(events: Sequence[Event], alias: str) -> str:
    """Return who moved an alias last.

    Args:
        events: the log of the model.
        alias: alias name.
    """
    return next((event.actor for event in reversed(events) if event.alias == alias), "")


def merge(connection: sqlite3.Connection, name: str, events: Sequence[Event], manifests: Mapping[str, Manifest]) -> None:
    """Copy events into the log of a database, and bring the tables of their model in line with it.

    A deletion does not reach a version that the database has: a copy of one's own is deleted where it is.

    Args:
        connection: open write transaction, or a database in memory.
        name: model name.
        events: events of the shared log that the database lacks.
        manifests: manifests of the versions that they create, by digest.
    """
    present = dict(connection.execute("SELECT version, manifest_digest FROM versions WHERE name = ?", [name]).fetchall())
    for event in events:
        entry = copied(event)
        if entry.verb == "deleted" and entry.version in present:
            entry = superseded(entry)
        append(connection, entry, datetime.fromisoformat(entry.detail["source"]["at"]))
    log = list(load_events(connection, "name = ?", [name]))
    state = replay(log)
    places = {event.detail["manifest"]: event.seq for event in reversed(log) if event.verb in CREATIONS}  # the first of each
    connection.execute("DELETE FROM aliases WHERE name = ?", [name])
    for (_, version), digest in state.versions.items():
        if version not in present:
            if digest not in manifests:
                raise DamagedManifestError(f"{name}@{version}", "the log names it, but it was not pulled")
            queries.add_version(connection, manifests[digest], digest, places[digest])
    for (_, alias), version in state.aliases.items():
        if (name, version) not in state.versions:
            raise ConflictError(f"{name}@{alias} points to version {version}, which was deleted. Pull {name}@{version} first.")
        queries.set_alias(connection, name, alias, version)
    connection.execute("DELETE FROM tags WHERE name = ?", [name])
    connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", sorted(state.tags))
    connection.executemany("INSERT OR REPLACE INTO models VALUES (?, ?)", sorted(state.last_version.items()))
