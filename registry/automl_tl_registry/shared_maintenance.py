"""Check a shared registry (``verify``), delete versions from it (``delete``) and free their storage (``collect``).

``collect`` removes a file if no version needs it, and if it was neither uploaded nor needed within ``GRACE``. So it leaves the
files of a push in progress, which the log does not name yet; ``push`` uploads again what is old and not safely needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from automl_tl_registry.contents import encode_manifest
from automl_tl_registry.deletion import Collected, deletion_of, numbered
from automl_tl_registry.errors import (
    DamagedManifestError,
    DamagedObjectError,
    IntegrityError,
    MissingObjectError,
    NotFoundError,
)
from automl_tl_registry.journal import Entry, State, happened_at, replay
from automl_tl_registry.queries import find
from automl_tl_registry.recovery import Problem, Verification, alias_problems
from automl_tl_registry.remote_store import RemoteStore, read_object
from automl_tl_registry.shared_log import READERS, append_entry, model_names
from automl_tl_registry.shared_models import SharedModels, blob_key, read_shared_manifest, signature_key
from automl_tl_registry.signing import check_digests
from automl_tl_registry.storage import digest_of
from automl_tl_registry.values import Blob, Event, Manifest, ModelVersion, Reference

GRACE: Final = timedelta(days=7)  # longer than any push takes


def verify(models: SharedModels, ref: str | None, public_key: Path | None) -> Verification:
    """Read and check every object, or those of one version. See ``SharedRegistry.verify``."""
    reference = None if ref is None else Reference.parse(ref)
    problems: list[Problem] = []
    manifests: dict[str, Manifest] = {}
    num_events = 0
    # 1) The logs, and the manifests that they name.
    for name in model_names(models.remote) if reference is None else [reference.name]:
        try:
            events = models.log(name) if reference is None else models.existing_log(name)
        except DamagedObjectError as error:
            problems.append(Problem(kind="log", subject=name, text=str(error)))
            continue
        num_events += len(events)
        state = replay(events)
        versions = state.versions if reference is None else dict([_located(models, state, reference)])
        problems += _read_manifests(models.remote, versions, manifests)
        if public_key is not None:
            problems += _alias_problems(events, state, versions, public_key)
    # 2) Every file once.
    owners: dict[Blob, str] = {}
    for manifest in manifests.values():
        for role, blob in manifest.blobs.items():
            owners.setdefault(blob, f"{manifest.name}@{manifest.version} {role} {blob.digest}")
    with ThreadPoolExecutor(READERS) as pool:
        damage = zip(owners.values(), pool.map(lambda blob: _damage(models.remote, blob), owners), strict=True)
        problems += [Problem(kind="blob", subject=owner, text=text) for owner, text in damage if text]
    # 3) Signatures of these digests.
    if public_key is not None:
        problems += _signature_problems(models.remote, manifests, public_key)
    return Verification(
        num_versions=len(manifests),
        num_blobs=len(owners) + len(manifests),
        num_bytes=sum(blob.size_bytes for blob in owners) + sum(len(encode_manifest(each)) for each in manifests.values()),
        num_events=num_events,
        problems=tuple(problems),
    )


def _read_manifests(
    remote: RemoteStore, versions: Mapping[tuple[str, int], str], manifests: dict[str, Manifest]
) -> Iterator[Problem]:
    """Read manifests as they are in the store into ``manifests``, by digest, and yield what is wrong with others."""
    for key, digest in versions.items():
        try:
            manifests[digest] = read_shared_manifest(remote, digest, key)
        except (DamagedObjectError, DamagedManifestError) as error:
            yield Problem(kind="manifest", subject=f"{key[0]}@{key[1]} manifest {digest}", text=str(error))


def _alias_problems(
    events: list[Event], state: State, versions: Mapping[tuple[str, int], str], public_key: Path
) -> Iterator[Problem]:
    moves = {event.alias: event for event in events if event.alias is not None}  # the last ones
    for (name, alias), number in state.aliases.items():
        if (name, number) in versions:
            yield from alias_problems(f"{name}@{alias}", moves[alias], public_key)


def _located(models: SharedModels, state: State, reference: Reference) -> tuple[tuple[str, int], str]:
    """Return name and number of a version, and the digest of its manifest, without reading the manifest."""
    number = reference.version
    if reference.alias is not None:
        number = state.aliases.get((reference.name, reference.alias))
    elif number is None:
        number = max((number for _, number in state.versions), default=None)
    digest = None if number is None else state.versions.get((reference.name, number))
    if number is None or digest is None:
        url = models.remote.url
        raise NotFoundError(f"There is no {reference} in {url}. `tl registry list {reference.name} --remote {url}` shows all.")
    return (reference.name, number), digest


def _damage(remote: RemoteStore, blob: Blob) -> str:
    """Return what is wrong with a file, empty if nothing is."""
    url = f"{remote.url}/{blob_key(blob.digest)}"
    try:
        found = digest_of(remote.chunks(blob_key(blob.digest)))
    except MissingObjectError:
        return str(DamagedObjectError(url, "it is missing"))
    return "" if found == blob else str(DamagedObjectError(url, f"expected sha256 {blob.digest}, found {found.digest}"))


def _signature_problems(remote: RemoteStore, manifests: dict[str, Manifest], public_key: Path) -> Iterator[Problem]:
    for digest, manifest in manifests.items():
        key = signature_key(digest)
        try:
            check_digests(manifest, digest, read_object(remote, key) if remote.stored(key) else None, public_key)
        except IntegrityError as error:
            yield Problem(kind="signature", subject=f"{manifest.name}@{manifest.version}", text=str(error))


def delete(models: SharedModels, ref: str, *, actor: str, reason: str | None) -> ModelVersion:
    """Delete a version from the log. See ``SharedRegistry.delete``."""
    reference = numbered(ref, reason)
    theirs = models.existing_log(reference.name)
    version = models.find(theirs, reference)
    models.check_exclusive()

    def decide(events: list[Event]) -> Entry:  # again if someone else was faster: the version may have an alias by now
        with models.copy({reference.name: events}) as connection:
            return deletion_of(connection, find(connection, reference), actor, reason, models.store.clock())

    append_entry(models.remote, reference.name, theirs, decide, models.store.clock())
    return version


def collect(models: SharedModels, *, dry_run: bool) -> Collected:
    """Remove files that nothing needs. See ``SharedRegistry.gc``."""
    models.check_exclusive()
    remote, oldest = models.remote, models.store.clock() - GRACE
    # 1) Files first: a version that is pushed from now on is in the logs, or its files are newer than `oldest`.
    digests = [key.rpartition("/")[2] for key in remote.list("blobs/sha256/")]
    # 2) What versions need, and what versions needed that were deleted a short time ago.
    needed = set()
    for name in model_names(remote):
        events = models.log(name)
        manifests = models.manifests(events)
        for event in events:
            if event.verb == "deleted" and happened_at(event) > oldest:
                digest = str(event.detail["manifest"])
                with suppress(IntegrityError):  # nothing can need the files of a damaged manifest
                    manifests[digest] = read_shared_manifest(remote, digest, (name, event.version or 0))
        needed |= {*manifests, *(blob.digest for manifest in manifests.values() for blob in manifest.blobs.values())}
    # 3) The rest, unless it is new.
    removed = []
    for digest in digests:
        stored = None if digest in needed else remote.stored(blob_key(digest))
        if stored is not None and stored.modified < oldest:
            removed.append(Blob(digest=digest, size_bytes=stored.size_bytes))
            if not dry_run:
                remote.remove(blob_key(digest))
                remote.remove(signature_key(digest))
    return Collected(blobs=tuple(removed), dry_run=dry_run)
