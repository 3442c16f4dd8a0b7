"""Read and write the tables of versions, aliases and tags, and answer questions about versions and history.

Functions that take a connection only run SQL; those that take a ``Store`` open a transaction of their own.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from typing import Final, Literal

from automl_tl_registry.contents import read_manifest
from automl_tl_registry.errors import DamagedManifestError, NotFoundError, nearest
from automl_tl_registry.journal import canonical, load_events, tenures
from automl_tl_registry.store import Store
from automl_tl_registry.values import (
    EVIDENCE_ROLES,
    Event,
    Manifest,
    ModelVersion,
    Reference,
    Tenure,
    VersionView,
    checked_alias,
    checked_name,
    checked_tag,
)

SortKey = Literal["created", "name", "accuracy", "latency", "size"]
# A version pulled from a shared registry counts from when it was published there.
NEWEST_FIRST: Final = (
    "(SELECT coalesce(json_extract(detail, '$.source.at'), at) FROM events WHERE events.seq = versions.seq) DESC, seq DESC"
)
ORDERS: Final[dict[SortKey, str]] = {
    "created": NEWEST_FIRST,
    "name": "name, version DESC",
    "accuracy": f"accuracy DESC, {NEWEST_FIRST}",
    "latency": f"latency_ms IS NULL, latency_ms, {NEWEST_FIRST}",
    "size": f"size_bytes, {NEWEST_FIRST}",
}


def _locate(connection: sqlite3.Connection, reference: Reference) -> tuple[str, int]:
    name = reference.name
    if reference.alias is not None:
        version = aliases_of(connection, name).get(reference.alias)
        if version is not None:
            return name, version
    elif reference.version is not None:
        if connection.execute("SELECT 1 FROM versions WHERE name = ? AND version = ?", [name, reference.version]).fetchone():
            return name, reference.version
    else:
        newest = connection.execute("SELECT max(version) FROM versions WHERE name = ?", [name]).fetchone()[0]
        if newest is not None:
            return name, int(newest)
    raise _not_found(connection, reference)


def _not_found(connection: sqlite3.Connection, reference: Reference) -> NotFoundError:
    """Return an error that lists the known names, or suggests the most similar one."""
    name, version, alias = reference.name, reference.version, reference.alias
    numbers = [row[0] for row in connection.execute("SELECT version FROM versions WHERE name = ? ORDER BY version", [name])]
    had_versions = connection.execute("SELECT 1 FROM models WHERE name = ?", [name]).fetchone() is not None
    if not numbers and not (had_versions and version is not None):
        known = [row[0] for row in connection.execute("SELECT DISTINCT name FROM versions")]
        hint = nearest(name, known, "`tl registry list` shows all models." if known else "The registry is empty.")
        return NotFoundError(f"There is no model named {name!r}. {hint}")
    if alias is not None:
        known = list(aliases_of(connection, name))
        otherwise = f"It has: {', '.join(known)}." if known else f"`tl registry promote {name}@VERSION {alias}` sets it."
        return NotFoundError(f"No version of {name} has the alias {alias!r}. {nearest(alias, known, otherwise)}")
    query = "SELECT 1 FROM events WHERE name = ? AND version = ? AND verb = 'deleted'"
    deleted = connection.execute(query, [name, version]).fetchone() is not None
    what = f"{name}@{version} was deleted" if deleted else f"{name} has no version {version}"
    latest = ", ".join(map(str, numbers[-5:])) or "none"
    return NotFoundError(f"{what}; its latest versions are: {latest}. `tl registry list {name}` shows all.")


def aliases_of(connection: sqlite3.Connection, name: str) -> dict[str, int]:
    """Return the version numbers of a model by alias, sorted by alias.

    Args:
        connection: open transaction.
        name: model name.
    """
    rows = connection.execute("SELECT alias, version FROM aliases WHERE name = ? ORDER BY alias", [name])
    return {row[0]: row[1] for row in rows}


def find(connection: sqlite3.Connection, reference: Reference) -> ModelVersion:
    """Return the version a reference currently points to, with its current aliases and tags.

    Args:
        connection: open transaction.
        reference: a parsed reference.

    Raises:
        NotFoundError: there is none; the message lists the known names.
    """
    return _loaded(connection, [_locate(connection, reference)])[0]


def list_versions(
    connection: sqlite3.Connection,
    name: str | None = None,
    *,
    alias: str | None = None,
    tag: str | None = None,
    sort: SortKey = "created",
    last: int | None = None,
) -> list[ModelVersion]:
    """Return the versions that match all conditions. See ``Registry.versions``."""
    conditions, arguments = ["1"], []
    if name is not None:
        conditions.append("name = ?")
        arguments.append(checked_name(name))
    if alias is not None:
        conditions.append("(name, version) IN (SELECT name, version FROM aliases WHERE alias = ?)")
        arguments.append(checked_alias(alias))
    if tag is not None:
        conditions.append("(name, version) IN (SELECT name, version FROM tags WHERE tag = ?)")
        arguments.append(checked_tag(tag))
    newest = f"SELECT * FROM versions WHERE {' AND '.join(conditions)} ORDER BY {NEWEST_FIRST} LIMIT ?"
    limit = -1 if last is None else last
    rows = connection.execute(f"SELECT name, version FROM ({newest}) AS versions ORDER BY {ORDERS[sort]}", [*arguments, limit])
    return _loaded(connection, [(row[0], row[1]) for row in rows])


def _loaded(connection: sqlite3.Connection, keys: Sequence[tuple[str, int]]) -> list[ModelVersion]:
    versions = []
    for name, version in keys:
        row = connection.execute(
            "SELECT manifest_digest, json FROM versions JOIN manifests ON digest = manifest_digest "
            "WHERE name = ? AND version = ?",
            [name, version],
        ).fetchone()
        manifest = Manifest.model_validate(json.loads(row["json"]))
        versions.append(
            ModelVersion(
                **{key: getattr(manifest, key) for key in ("created_at", "actor", "parent", "origin", "blobs", "facts")},
                name=name,
                version=version,
                manifest_digest=row["manifest_digest"],
                aliases=_names(connection, "alias", "aliases", name, version),
                tags=_names(connection, "tag", "tags", name, version),
            )
        )
    return versions


def _names(connection: sqlite3.Connection, column: str, table: str, name: str, version: int) -> tuple[str, ...]:
    query = f"SELECT {column} FROM {table} WHERE name = ? AND version = ? ORDER BY {column}"
    return tuple(row[0] for row in connection.execute(query, [name, version]))


def take_number(connection: sqlite3.Connection, name: str) -> int:
    """Return the next version number of a model, from 1; numbers are never reused.

    Args:
        connection: open write transaction.
        name: model name; it may be new.
    """
    row = connection.execute("SELECT last_version FROM models WHERE name = ?", [name]).fetchone()
    return 1 if row is None else int(row[0]) + 1


def add_version(connection: sqlite3.Connection, manifest: Manifest, digest: str, seq: int) -> None:
    """Insert the rows of a version.

    Args:
        connection: open write transaction.
        manifest: its manifest.
        digest: sha256 of its manifest blob.
        seq: number of the event that created the version.
    """
    name, version, facts = manifest.name, manifest.version, manifest.facts
    connection.execute(
        "INSERT INTO models VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET last_version = max(last_version, excluded.last_version)",
        [name, version],
    )
    size = sum(blob.size_bytes for role, blob in manifest.blobs.items() if role not in EVIDENCE_ROLES)
    connection.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [name, version, seq, digest, manifest.origin, facts.metrics.accuracy, facts.latency_ms, size],
    )
    text = canonical(manifest.model_dump(mode="json"))
    connection.execute("INSERT OR IGNORE INTO manifests VALUES (?, ?)", [digest, text])
    rows: Iterable[tuple[object, ...]] = (
        (name, version, role, blob.digest, blob.size_bytes) for role, blob in manifest.blobs.items()
    )
    connection.executemany("INSERT INTO version_blobs VALUES (?, ?, ?, ?, ?)", rows)


def set_alias(connection: sqlite3.Connection, name: str, alias: str, version: int | None) -> None:
    """Point an alias to a version, or remove it.

    Args:
        connection: open write transaction.
        name: model name.
        alias: alias name.
        version: number of an existing version; None to remove the alias.
    """
    connection.execute("DELETE FROM aliases WHERE name = ? AND alias = ?", [name, alias])
    if version is not None:
        connection.execute("INSERT INTO aliases VALUES (?, ?, ?)", [name, alias, version])


def resolve(store: Store, ref: str) -> ModelVersion:
    """Return the version a reference currently points to. See ``Registry.resolve``."""
    reference = Reference.parse(ref)
    store.check_not_orphaned()
    return store.database.read(lambda connection: find(connection, reference))


def check_manifest(store: Store, version: ModelVersion) -> None:
    """Check that the manifest blob is intact and agrees with the database.

    Args:
        store: the registry.
        version: the version as the database has it.

    Raises:
        IntegrityError: the blob is damaged, or the two disagree.
    """
    path = store.blobs.checked(version.manifest_digest, f"manifest of {version.ref}")
    manifest = read_manifest(path)
    recorded = {key: value for key, value in version.model_dump(mode="json").items() if key in Manifest.model_fields}
    written = {key: value for key, value in manifest.model_dump(mode="json").items() if key in recorded}
    if canonical(recorded) != canonical(written):
        raise DamagedManifestError(str(path), f"it disagrees with the database about {version.ref}")


def view_of(store: Store, version: ModelVersion) -> VersionView:
    """Return the facts of a version and its files by role, after checking every digest.

    Args:
        store: the registry.
        version: the version as the database has it.

    Raises:
        IntegrityError: a blob or the manifest is damaged.
    """
    check_manifest(store, version)
    paths = {role: store.blobs.checked(blob.digest, f"{role} of {version.ref}") for role, blob in version.blobs.items()}
    return VersionView(version.name, version.version, version.facts, paths)


def events(store: Store, name: str | None = None, *, last: int | None = None) -> list[Event]:
    """Return the event log, oldest first. See ``Registry.events``."""
    store.check_not_orphaned()
    condition, arguments = ("1", []) if name is None else ("name = ?", [checked_name(name)])
    limited = f"seq IN (SELECT seq FROM events WHERE {condition} ORDER BY seq DESC LIMIT ?)"
    limit = -1 if last is None else last
    return store.database.read(lambda connection: list(load_events(connection, limited, [*arguments, limit])))


def history(
    store: Store, name: str | None = None, *, alias: str | None = None, at: datetime | date | None = None
) -> list[Tenure]:
    """Return which alias pointed to which version, from when to when, by whom and why; oldest first.

    See ``Registry.history``.
    """
    store.check_not_orphaned()
    return store.database.read(lambda connection: find_tenures(connection, name, alias=alias, at=at))


def find_tenures(
    connection: sqlite3.Connection, name: str | None = None, *, alias: str | None = None, at: datetime | date | None = None
) -> list[Tenure]:
    """Return the history in an open transaction. See ``Registry.history``."""
    conditions, arguments = ["alias IS NOT NULL"], []
    if name is not None:
        conditions.append("name = ?")
        arguments.append(checked_name(name))
    if alias is not None:
        conditions.append("alias = ?")
        arguments.append(checked_alias(alias))
    where = " AND ".join(conditions)
    changes = tenures(load_events(connection, where, arguments))
    if at is None:
        return changes
    begin, end = _span(at)
    return [tenure for tenure in changes if tenure.since <= end and (tenure.until is None or tenure.until > begin)]


def _span(at: datetime | date) -> tuple[datetime, datetime]:
    if isinstance(at, datetime):
        return at.astimezone(), at.astimezone()
    begin = datetime.combine(at, time.min)
    return begin.astimezone(), (begin + timedelta(days=1)).astimezone() - timedelta(microseconds=1)
