"""Pull from a shared registry: files are received and checked as in a publication, then one transaction makes all visible.

Aliases follow the shared log: a move that was made here only is undone, and named in a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from automl_tl_registry import contents, queries
from automl_tl_registry.errors import DamagedBlobError, DamagedObjectError, MissingObjectError
from automl_tl_registry.exchange import check_space
from automl_tl_registry.journal import Entry, append, replay
from automl_tl_registry.publication import drafted
from automl_tl_registry.push import check_numbers
from automl_tl_registry.remote_store import read_object
from automl_tl_registry.shared_log import ALIAS_VERBS, CREATIONS, missing_from
from automl_tl_registry.shared_models import SharedModels, blob_key, merge, mover, signature_key
from automl_tl_registry.signing import check_manifest_and_files, write_signature
from automl_tl_registry.storage import digest_of
from automl_tl_registry.values import Blob, Event, Manifest, ModelVersion, Reference, Transfer


def pull(models: SharedModels, ref: str, *, actor: str, public_key: Path | None) -> Transfer:
    """Download a version or a whole model. See ``SharedRegistry.pull``."""
    store, url, reference = models.store, models.remote.url, Reference.parse(ref)
    name = reference.name
    theirs = models.existing_log(name)
    only = models.find(theirs, reference).version if "@" in ref else None
    ours = queries.events(store, name)
    check_numbers(name, ours, theirs, url)
    added = [event for event in missing_from(theirs, ours) if only is None or _is_about(event, only)]
    local = store.database.read(lambda connection: queries.list_versions(connection, name))
    here = {version.manifest_digest: version for version in local}
    created = {str(event.detail["manifest"]) for event in added if event.verb in CREATIONS}
    state = replay(theirs)
    wanted = {key: digest for key, digest in state.versions.items() if only in (None, key[1])}
    manifests = models.manifests(theirs)
    targets = {version for version in state.aliases.values() if only is None} | {only}
    lost = {key: digest for key, digest in wanted.items() if digest not in here and digest not in created}
    restored = {key[1]: digest for key, digest in lost.items() if key[1] in targets}
    received = ({*created, *restored.values()}).difference(here)
    new = {digest: manifests[digest] for digest in wanted.values() if digest in received}
    checked = {digest: manifests[digest] for digest in wanted.values() if digest in here} | new
    recovered = [Entry("recovered", actor, name, number, detail={"manifest": digest}) for number, digest in restored.items()]
    num_files, num_bytes = _receive(models, name, checked, added, recovered, public_key)
    return Transfer(
        name=name,
        url=url,
        versions=tuple(f"{name}@{manifest.version}" for manifest in new.values()),
        num_present=len(checked) - len(new),
        num_files=num_files,
        num_bytes=num_bytes,
        num_events=len(added),
        notes=(*_taken_over(name, ours, added, url), *_deletions(name, wanted, checked, added, here, url)),
    )


def _receive(
    models: SharedModels,
    name: str,
    manifests: Mapping[str, Manifest],
    added: Sequence[Event],
    recovered: Sequence[Entry],
    public_key: Path | None,
) -> tuple[int, int]:
    """Download and check the missing files, and make everything visible in one transaction; return number and bytes."""
    store, num_bytes = models.store, 0
    blobs = {blob.digest: blob for manifest in manifests.values() for blob in manifest.blobs.values()}
    encoded = {digest: contents.encode_manifest(manifest) for digest, manifest in manifests.items()}
    missing = {digest: blob for digest, blob in blobs.items() if not store.blobs.is_sound(digest)}
    damaged = [digest for digest in encoded if not store.blobs.is_sound(digest)]
    if not (missing or damaged or added or recovered or public_key):
        return 0, 0
    check_space(store, missing.values())
    claims = blobs | {digest: digest_of([content]) for digest, content in encoded.items()}
    with drafted(store, name, claims) as folder:
        for blob in missing.values():
            _download(models, blob, folder)
            num_bytes += blob.size_bytes
        for digest, content in encoded.items():
            store.blobs.receive([content], claims[digest], staging=folder)
        for digest, manifest in manifests.items():
            for role, blob in manifest.blobs.items():
                contents.check_role(role, store.blobs.path(blob.digest), manifest.facts)
            _receive_signature(models, digest, manifest, public_key)
        with store.database.writing() as connection:
            for entry in recovered:
                append(connection, entry, store.clock())
            merge(connection, name, added, manifests)
            connection.execute("DELETE FROM drafts WHERE id = ?", [folder.name])
    return len(missing), num_bytes


def _receive_signature(models: SharedModels, digest: str, manifest: Manifest, public_key: Path | None) -> None:
    """Download the signature of a version if there is none here; check it if a key is given."""
    store, remote, key = models.store, models.remote, signature_key(digest)
    path = store.signatures / f"{digest}.json"
    is_here = path.exists()
    signature = path.read_bytes() if is_here else read_object(remote, key) if remote.stored(key) else None
    if public_key is not None:
        check_manifest_and_files(store, digest, manifest, signature, public_key)
    if signature is not None and not is_here:
        write_signature(store, digest, signature)


def _download(models: SharedModels, blob: Blob, folder: Path) -> None:
    url = f"{models.remote.url}/{blob_key(blob.digest)}"
    try:
        models.store.blobs.receive(models.remote.chunks(blob_key(blob.digest)), blob, staging=folder)
    except MissingObjectError as error:
        raise DamagedObjectError(url, "it is missing") from error
    except DamagedBlobError as error:
        raise DamagedObjectError(url, f"expected sha256 {blob.digest}, found {error.found}") from error


def _is_about(event: Event, version: int) -> bool:
    """Return whether an event belongs to one version; alias moves belong to the model."""
    return event.version == version and event.verb not in ALIAS_VERBS and event.verb != "superseded"


def _taken_over(name: str, ours: Sequence[Event], added: Sequence[Event], url: str) -> Iterator[str]:
    """Yield a note for each alias that was moved here, and now follows the shared registry."""
    before, after = replay(ours).aliases, replay([*ours, *added]).aliases
    for alias in sorted({event.alias for event in added if event.alias}):
        was, now = before.get((name, alias)), after.get((name, alias))
        if was is not None and was != now:
            place = "unset" if now is None else f"{name}@{now}"
            yield f"{name}@{alias}: {name}@{was} -> {place}, as moved in {url} by {mover(added, alias)}."


def _deletions(
    name: str,
    wanted: Mapping[tuple[str, int], str],
    checked: Mapping[str, Manifest],
    added: Sequence[Event],
    here: Mapping[str, ModelVersion],
    url: str,
) -> Iterator[str]:
    """Yield notes about versions that were deleted on one side only."""
    if gone := [f"{name}@{number}" for (_, number), digest in sorted(wanted.items()) if digest not in checked]:
        yield f"{', '.join(gone)}: deleted here earlier, and not pulled again."
    for event in added:
        if event.verb == "deleted" and event.detail["manifest"] in here:
            ref = f"{name}@{event.version}"
            yield f"{ref}: deleted in {url} by {event.actor}. It stays here; `tl registry delete {ref}` deletes it."
