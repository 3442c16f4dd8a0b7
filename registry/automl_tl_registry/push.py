"""Push to a shared registry: upload the files that are missing, then append to its log, which makes versions visible.

Killed at any step, a push leaves files that no log names, and the next push goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from automl_tl_registry import queries
from automl_tl_registry.errors import AliasMovedError, ConflictError
from automl_tl_registry.journal import Entry, happened_at, identity, replay
from automl_tl_registry.shared_log import (
    ALIAS_VERBS,
    CREATIONS,
    append_entry,
    digests_by_version,
    entries_to_share,
    missing_from,
)
from automl_tl_registry.shared_maintenance import GRACE
from automl_tl_registry.shared_models import SharedModels, blob_key, mover, signature_key
from automl_tl_registry.signing import read_signature
from automl_tl_registry.values import Event, ModelVersion, Transfer

Pair = tuple[Event, Entry]  # a local event, and the entry that copies it


def push(models: SharedModels, ref: str, *, repair: bool) -> Transfer:
    """Upload a version or a whole model. See ``SharedRegistry.push``."""
    store, remote = models.store, models.remote
    named = queries.resolve(store, ref)
    name, only = named.name, named.version if "@" in ref else None
    ours, theirs = queries.events(store, name), models.log(name)
    entries, notes = _plan(models, named, only, ours, theirs)
    # 1) Versions that were deleted there stay deleted, unless one is named.
    known = set(replay(theirs).versions.values())
    deleted = {digest for digests in digests_by_version(theirs).values() for digest in digests} - known
    local = store.database.read(lambda connection: queries.list_versions(connection, name))
    versions = [v for v in local if v.version == only or (only is None and v.manifest_digest not in deleted)]
    revived = [version for version in versions if version.manifest_digest in deleted]
    if left := [version.ref for version in local if only is None and version not in versions]:
        notes = (
            *notes,
            f"{', '.join(left)}: deleted in {remote.url}. `tl registry push {left[-1]} {remote.url}` brings it back.",
        )
    # 2) Files, then what makes them visible.
    new = [version for version in versions if version.manifest_digest not in known]
    safe = {blob.digest for version in versions if version not in new for blob in version.blobs.values()}
    files = [_upload(models, version, safe=() if repair else safe, repair=repair) for version in (versions if repair else new)]
    for version in versions:
        signature = read_signature(store, version)
        if signature is not None:
            remote.create(signature_key(version.manifest_digest), signature)
    for version in revived:
        entry = Entry("recovered", store.actor(None), name, version.version, detail={"manifest": version.manifest_digest})
        theirs = append_entry(remote, name, theirs, _unless_there(entry), store.clock())
    for event, entry in entries:
        theirs = append_entry(remote, name, theirs, _unless_conflict(event, entry, ours, remote.url), happened_at(event))
    return Transfer(
        name=name,
        url=remote.url,
        versions=tuple(version.ref for version in reversed(new)),
        num_present=len(versions) - len(new),
        num_files=sum(number for number, _ in files),
        num_bytes=sum(size for _, size in files),
        num_events=len(entries) + len(revived),
        notes=notes,
    )


def _plan(
    models: SharedModels, named: ModelVersion, only: int | None, ours: Sequence[Event], theirs: Sequence[Event]
) -> tuple[list[Pair], tuple[str, ...]]:
    """Return the entries to append and notes about what is left out; raise ConflictError before anything is uploaded."""
    name, url = named.name, models.remote.url
    check_numbers(name, ours, theirs, url)
    entries = entries_to_share(ours, theirs)
    if only is not None:
        verbs = (*CREATIONS, "tagged", "signed")
        entries = [
            (event, entry)
            for event, entry in entries
            if entry.version == only
            and entry.verb in verbs
            and entry.detail.get("manifest", named.manifest_digest) == named.manifest_digest
        ]
    moves = [event for event, entry in entries if entry.verb in ALIAS_VERBS]
    if moves and not models.remote.creates_exclusively():
        kept = ", ".join(sorted({f"{name}@{event.alias}" for event in moves}))
        note = f"{kept}: not moved, because {url} cannot create an object only if there is none."
        return [pair for pair in entries if pair[1].verb not in ALIAS_VERBS], (note,)
    for event in moves:
        _check_move(event, ours, theirs, url)
    return entries, ()


def _unless_there(entry: Entry) -> Callable[[list[Event]], Entry | None]:
    def decide(theirs: list[Event]) -> Entry | None:
        return None if replay(theirs).versions.get((str(entry.name), entry.version or 0)) else entry

    return decide


def _unless_conflict(event: Event, entry: Entry, ours: Sequence[Event], url: str) -> Callable[[list[Event]], Entry | None]:
    def decide(theirs: list[Event]) -> Entry | None:
        if any(identity(other) == identity(event) for other in theirs):
            return None  # another process pushed it
        check_numbers(str(event.name), ours, theirs, url)
        if entry.verb in ALIAS_VERBS:
            _check_move(event, ours, theirs, url)
        return entry

    return decide


def _upload(models: SharedModels, version: ModelVersion, *, safe: Collection[str], repair: bool) -> tuple[int, int]:
    """Upload the files of a version that are missing, have a wrong size or may be collected; return number and bytes."""
    store, remote = models.store, models.remote
    view = queries.view_of(store, version)
    paths = {blob.digest: view.paths[role] for role, blob in version.blobs.items()}
    paths[version.manifest_digest] = store.blobs.path(version.manifest_digest)
    number = size = 0
    for digest, path in paths.items():
        num_bytes, stored = path.stat().st_size, None if repair else remote.stored(blob_key(digest))
        # An old file that no version of the model needs could be collected before the log names it: uploading renews it.
        is_old = stored is not None and digest not in safe and stored.modified < store.clock() - GRACE / 2
        if stored is None or stored.size_bytes != num_bytes or is_old:
            remote.upload(blob_key(digest), path)
            number, size = number + 1, size + num_bytes
    return number, size


def check_numbers(name: str, ours: Sequence[Event], theirs: Sequence[Event], url: str) -> None:
    """Raise ConflictError if a number means one version here and another one there.

    Args:
        name: model name.
        ours: its log in the local registry.
        theirs: its log in the shared registry.
        url: the shared registry, for the error.
    """
    shared = digests_by_version(theirs)
    for (_, number), digest in sorted(replay(ours).versions.items()):
        others = shared.get(number, {digest})
        if digest not in others:
            author = next(event for event in theirs if event.verb in CREATIONS and event.version == number)
            ref = f"{name}@{number}"
            raise ConflictError(
                f"{ref} here and {ref} in {url}, pushed by {author.actor}, are different versions. Nothing was moved. "
                f"To share both: `tl registry export {ref} FILE.tar`, `tl registry delete {ref}`, "
                f"`tl registry pull {name} {url}`, `tl registry import FILE.tar`, which gives yours the next number."
            )


def _check_move(event: Event, ours: Sequence[Event], theirs: Sequence[Event], url: str) -> None:
    """Raise ConflictError if the shared log has moves of an alias that the local log lacks, or has deleted its version."""
    name, alias, state = str(event.name), str(event.alias), replay(theirs)
    if any(other.alias == event.alias for other in missing_from(theirs, ours)):
        before = event.detail.get("from")
        expected = before if isinstance(before, int) else None
        found = state.aliases.get((name, alias))
        raise AliasMovedError(name, alias, expected=expected, found=found, by=mover(theirs, alias), remote=url)
    number = event.version or 0
    if number in digests_by_version(theirs) and (name, number) not in state.versions:
        raise ConflictError(
            f"{name}@{alias} points to {name}@{number}, which was deleted in {url}. "
            f"Nothing was moved. `tl registry push {name}@{number} {url}` brings it back."
        )
