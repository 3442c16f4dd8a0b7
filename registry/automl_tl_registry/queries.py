"""Questions to the registry: resolve a reference, read a version's files, list events, and tell what was live when.

Nothing here writes. Files are returned only after their digests have been checked.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

from automl_tl_registry.errors import DamagedManifestError
from automl_tl_registry.index import find
from automl_tl_registry.journal import canonical, load_events, tenures
from automl_tl_registry.manifests import read_manifest
from automl_tl_registry.names import Reference, checked_alias, checked_name
from automl_tl_registry.store import Store
from automl_tl_registry.values import Event, Manifest, ModelVersion, Tenure, VersionView

__all__ = ["check_manifest", "events", "history", "resolve", "view_of"]

# ------------------------------------------------------------------------------------------------------------- versions


def resolve(store: Store, ref: str) -> ModelVersion:
    """Return the version a reference currently points to. See ``Registry.resolve``."""
    reference = Reference.parse(ref)
    store.check_not_orphaned()
    return store.database.read(lambda connection: find(connection, reference))


def check_manifest(store: Store, version: ModelVersion) -> None:
    """Check that the manifest blob is intact and agrees with the database.

    Args:
        store: the registry.
        version: the version as recorded in the database.

    Raises:
        IntegrityError: the blob is missing or damaged, or it disagrees with the database.
    """
    path = store.blobs.checked(version.manifest_digest)
    manifest = read_manifest(path)
    recorded = {key: value for key, value in version.model_dump(mode="json").items() if key in Manifest.model_fields}
    written = {key: value for key, value in manifest.model_dump(mode="json").items() if key in recorded}
    if canonical(recorded) != canonical(written):
        raise DamagedManifestError(str(path), f"it disagrees with the database about {version.ref}")


def view_of(store: Store, version: ModelVersion) -> VersionView:
    """Return the facts and files of a version after checking every digest.

    Args:
        store: the registry.
        version: the version to read.

    Raises:
        IntegrityError: a file is missing or damaged, or the database and the manifest blob disagree.
    """
    check_manifest(store, version)
    paths = {role: store.blobs.checked(blob.digest) for role, blob in version.blobs.items()}
    return VersionView(version.name, version.version, version.facts, paths)


# -------------------------------------------------------------------------------------------------------------- history


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
    conditions, arguments = ["alias IS NOT NULL"], []
    if name is not None:
        conditions.append("name = ?")
        arguments.append(checked_name(name))
    if alias is not None:
        conditions.append("alias = ?")
        arguments.append(checked_alias(alias))
    where = " AND ".join(conditions)
    found = tenures(store.database.read(lambda connection: list(load_events(connection, where, arguments))))
    if at is None:
        return found
    begin, end = _span(at)
    return [each for each in found if each.since <= end and (each.until is None or each.until > begin)]


def _span(at: datetime | date) -> tuple[datetime, datetime]:
    if isinstance(at, datetime):
        return at.astimezone(), at.astimezone()
    begin = datetime.combine(at, time.min)
    return begin.astimezone(), (begin + timedelta(days=1)).astimezone() - timedelta(microseconds=1)
