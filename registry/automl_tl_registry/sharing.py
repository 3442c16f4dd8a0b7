"""Share models through a store that everybody reaches, without a server: ``push``, ``pull``, ``sync``, ``promote``.

    blobs/sha256/ab/abcdef...         files and manifests, named by the sha256 of their content
    signatures/DIGEST.json            signature of the version whose manifest has this digest
    models/NAME/log/00000001.json     the log: see ``shared_log``
    gates.toml                        optional: gate rules for ``promote``, used instead of the local ones

**Push** uploads missing files first and then appends to the log, so a version is visible when all of it is there. Killed at
any step, it leaves files that no log names, and the next push goes on. **Pull** receives files as a publication does: digests
are checked, and one transaction makes versions, events, aliases and tags visible.

The shared log decides. A version number stands for one version: two different ones are a conflict. Aliases follow the shared
log: ``pull`` takes over its moves, ``push`` refuses if both sides moved the same alias.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

from automl_tl_registry import aliases, contents, queries
from automl_tl_registry.aliases import Move
from automl_tl_registry.errors import (
    AliasMovedError,
    ConflictError,
    DamagedBlobError,
    DamagedManifestError,
    DamagedObjectError,
    GateFailedError,
    IntegrityError,
    MissingObjectError,
    NoExclusiveCreateError,
    NotFoundError,
    nearest,
)
from automl_tl_registry.exchange import check_space, checked_manifest
from automl_tl_registry.gates import GATES_FILE, GatePolicy, read_policy
from automl_tl_registry.journal import Entry, append, copied, happened_at, identity, load_events, replay
from automl_tl_registry.publication import drafted
from automl_tl_registry.remote_store import RemoteStore, read_object
from automl_tl_registry.shared_log import (
    CREATIONS,
    READERS,
    append_entry,
    digests_by_version,
    entries_to_share,
    missing_from,
    model_names,
    read_log,
)
from automl_tl_registry.signing import check_manifest_and_files, read_signature, write_signature
from automl_tl_registry.storage import digest_of
from automl_tl_registry.store import Store, memory_database
from automl_tl_registry.values import (
    ANYWHERE,
    AliasChange,
    Anywhere,
    Blob,
    Event,
    GateResult,
    Listing,
    Manifest,
    ModelVersion,
    Reference,
    Tenure,
    Value,
    checked_name,
)

T = TypeVar("T")
ALIAS_VERBS: Final = ("promoted", "rolled-back", "demoted")


class Transfer(Value):
    """What a push or a pull moved, and what it left alone (``notes``)."""

    name: str
    url: str
    versions: tuple[str, ...] = ()
    num_present: int = 0
    num_files: int = 0
    num_bytes: int = 0
    num_events: int = 0
    notes: tuple[str, ...] = ()


class SharedRegistry:
    """A shared registry, used from a local one."""

    def __init__(self, store: Store, remote: RemoteStore) -> None:
        """Share between a local registry and a shared one; nothing is read yet."""
        self._store, self._remote = store, remote
        self._logs: dict[str, list[Event]] = {}  # as they were read; they only grow

    # ------------------------------------------------------------------------------------------------------------ queries

    def read(self, name: str | None, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query of ``queries`` on the shared registry and return its result.

        Args:
            name: only this model; None for all.
            query: gets a connection to a copy in memory.

        Raises:
            RemoteError: the store cannot be reached.
            DamagedObjectError: a log or a manifest is damaged.
        """
        with closing(memory_database()) as connection:
            for model in model_names(self._remote) if name is None else [name]:
                events = self._log(model)
                _merge(connection, model, events, self._manifests(events))
            return query(connection)

    def versions(
        self,
        name: str | None = None,
        *,
        alias: str | None = None,
        tag: str | None = None,
        sort: queries.SortKey = "created",
        last: int | None = None,
    ) -> Listing[ModelVersion]:
        """Return the versions in the shared registry that match all conditions. See ``Registry.versions``."""
        return Listing(
            self.read(
                name, lambda connection: queries.list_versions(connection, name, alias=alias, tag=tag, sort=sort, last=last)
            )
        )

    def resolve(self, ref: str) -> ModelVersion:
        """Return the version that a reference points to in the shared registry."""
        reference = Reference.parse(ref)
        theirs = self._log(reference.name)
        if not theirs:
            raise self._no_model(reference.name)
        return self._find(theirs, reference)

    def history(
        self, name: str | None = None, *, alias: str | None = None, at: datetime | date | None = None
    ) -> Listing[Tenure]:
        """Return what was live when in the shared registry. See ``Registry.history``."""
        return Listing(self.read(name, lambda connection: queries.find_tenures(connection, name, alias=alias, at=at)))

    def _manifests(self, events: Sequence[Event], but: Mapping[str, object] | None = None) -> dict[str, Manifest]:
        """Return the manifests of the versions in a log by digest, except those in ``but``; every digest is checked."""
        wanted = {digest: key for key, digest in replay(events).versions.items() if digest not in (but or {})}
        with ThreadPoolExecutor(READERS) as pool:
            return dict(zip(wanted, pool.map(lambda item: self._manifest(*item), wanted.items()), strict=True))

    def _manifest(self, digest: str, key: tuple[str, int]) -> Manifest:
        url = f"{self._remote.url}/{_blob_key(digest)}"
        ref = f"{key[0]}@{key[1]}"
        if self._store.blobs.is_sound(digest):
            return contents.read_manifest(self._store.blobs.path(digest))
        try:
            content = read_object(self._remote, _blob_key(digest))
        except MissingObjectError as error:
            raise DamagedObjectError(url, f"the manifest of {ref} is missing") from error
        if (actual := digest_of([content]).digest) != digest:
            raise DamagedObjectError(url, f"expected sha256 {digest} for the manifest of {ref}, found {actual}")
        manifest = checked_manifest(content, url)
        if (manifest.name, manifest.version) != key:
            raise DamagedObjectError(url, f"it is the manifest of {manifest.name}@{manifest.version}, not of {ref}")
        return manifest

    # --------------------------------------------------------------------------------------------------------------- push

    def push(self, ref: str, *, repair: bool = False) -> Transfer:
        """Upload a version, or with a bare name the whole model: versions, tags, aliases and history.

        Args:
            ref: ``NAME``, ``NAME@VERSION`` or ``NAME@ALIAS``.
            repair: upload every file again, to replace damaged ones.

        Raises:
            ConflictError: a version number means another version there, or both sides moved an alias.
            IntegrityError: a file is damaged here.
            RemoteError: the store cannot be reached.
        """
        name, only = self._scope(ref)
        ours = queries.events(self._store, name)
        theirs = self._log(name)
        entries, notes = self._plan_push(name, only, ours, theirs)
        versions = [v for v in self._local_versions(name) if only in (None, v.version)]
        known = set(replay(theirs).versions.values())
        new = [version for version in versions if version.manifest_digest not in known]
        files = [self._upload(version, repair=repair) for version in (versions if repair else new)]
        for version in versions:
            self._push_signature(version)
        for event, entry in entries:
            theirs = append_entry(self._remote, name, theirs, self._unless_conflict(event, entry, ours), happened_at(event))
        return Transfer(
            name=name,
            url=self._remote.url,
            versions=tuple(version.ref for version in reversed(new)),
            num_present=len(versions) - len(new),
            num_files=sum(number for number, _ in files),
            num_bytes=sum(size for _, size in files),
            num_events=len(entries),
            notes=notes,
        )

    def _plan_push(
        self, name: str, only: int | None, ours: Sequence[Event], theirs: Sequence[Event]
    ) -> tuple[list[tuple[Event, Entry]], tuple[str, ...]]:
        """Return the entries to append and notes about what is left out; raise ConflictError before anything is uploaded."""
        _check_numbers(name, ours, theirs, self._remote.url)
        entries = entries_to_share(ours, theirs)
        if only is not None:
            alive = replay(ours).versions[name, only]
            verbs = (*CREATIONS, "tagged", "signed")
            entries = [
                (event, entry)
                for event, entry in entries
                if entry.version == only and entry.verb in verbs and entry.detail.get("manifest", alive) == alive
            ]
        moves = [event for event, entry in entries if entry.verb in ALIAS_VERBS]
        if moves and not self._remote.creates_exclusively():
            kept = ", ".join(sorted({f"{name}@{event.alias}" for event in moves}))
            note = f"{kept}: not moved, because {self._remote.url} cannot create an object only if there is none."
            return [pair for pair in entries if pair[1].verb not in ALIAS_VERBS], (note,)
        for event in moves:
            _check_not_moved(event, ours, theirs, self._remote.url)
        return entries, ()

    def _unless_conflict(self, event: Event, entry: Entry, ours: Sequence[Event]) -> Callable[[list[Event]], Entry | None]:
        def decide(theirs: list[Event]) -> Entry | None:
            if any(identity(other) == identity(event) for other in theirs):
                return None  # another process pushed it
            _check_numbers(str(event.name), ours, theirs, self._remote.url)
            if entry.verb in ALIAS_VERBS:
                _check_not_moved(event, ours, theirs, self._remote.url)
            return entry

        return decide

    def _upload(self, version: ModelVersion, *, repair: bool) -> tuple[int, int]:
        """Upload the files of a version that are missing or have a wrong size; return their number and bytes."""
        view = queries.view_of(self._store, version)
        paths = {blob.digest: view.paths[role] for role, blob in version.blobs.items()}
        paths[version.manifest_digest] = self._store.blobs.path(version.manifest_digest)
        number = size = 0
        for digest, path in paths.items():
            num_bytes = path.stat().st_size
            if repair or self._remote.size(_blob_key(digest)) != num_bytes:
                self._remote.upload(_blob_key(digest), path)
                number, size = number + 1, size + num_bytes
        return number, size

    def _push_signature(self, version: ModelVersion) -> None:
        signature = read_signature(self._store, version)
        if signature is not None:
            self._remote.create(_signature_key(version.manifest_digest), signature)

    # --------------------------------------------------------------------------------------------------------------- pull

    def pull(self, ref: str, *, actor: str, public_key: Path | None = None) -> Transfer:
        """Download a version, or with a bare name the whole model: versions, tags, aliases and history.

        Args:
            ref: ``NAME``, ``NAME@VERSION`` or ``NAME@ALIAS`` in the shared registry.
            actor: who pulls; recorded if a version that was deleted here comes back.
            public_key: PEM file; every version must be signed with this key.

        Raises:
            NotFoundError: the shared registry has no such version.
            ConflictError: a version number means another version here.
            DamagedObjectError: an object is damaged; nothing of it becomes visible.
            RemoteError: the store cannot be reached.
        """
        reference = Reference.parse(ref)
        name = reference.name
        theirs = self._log(name)
        if not theirs:
            raise self._no_model(name)
        only = None
        if "@" in ref:
            only = self._find(theirs, reference).version
        ours = queries.events(self._store, name)
        _check_numbers(name, ours, theirs, self._remote.url)
        added = [event for event in missing_from(theirs, ours) if only is None or _is_about(event, only)]
        here = {version.manifest_digest: version for version in self._local_versions(name)}
        created = {str(event.detail["manifest"]) for event in added if event.verb in CREATIONS}
        wanted = {key: digest for key, digest in replay(theirs).versions.items() if only in (None, key[1])}
        manifests = self._manifests(theirs)
        targets = {version for (_, alias), version in replay(theirs).aliases.items() if only is None} | {only}
        lost = {key: digest for key, digest in wanted.items() if digest not in here and digest not in created}
        restored = {key[1]: digest for key, digest in lost.items() if key[1] in targets}
        new = {digest: manifests[digest] for digest in wanted.values() if digest in created or digest in restored.values()}
        checked = {digest: manifests[digest] for digest in wanted.values() if digest in here} | new
        recovered = [
            Entry("recovered", actor, name, number, detail={"manifest": digest}) for number, digest in restored.items()
        ]
        counts = self._receive(name, checked, added, recovered, public_key)
        return Transfer(
            name=name,
            url=self._remote.url,
            versions=tuple(f"{name}@{manifest.version}" for manifest in new.values()),
            num_present=len(checked) - len(new),
            num_files=counts[0],
            num_bytes=counts[1],
            num_events=len(added),
            notes=(*_taken_over(name, ours, added, self._remote.url), *_deleted_here(name, wanted, checked)),
        )

    def _find(self, theirs: Sequence[Event], reference: Reference) -> ModelVersion:
        with closing(memory_database()) as connection:
            _merge(connection, reference.name, theirs, self._manifests(theirs))
            return queries.find(connection, reference)

    def _receive(
        self,
        name: str,
        manifests: Mapping[str, Manifest],
        added: Sequence[Event],
        recovered: Sequence[Entry],
        public_key: Path | None,
    ) -> tuple[int, int]:
        """Download and check the missing files, and make everything visible in one transaction; return number and bytes."""
        store, received = self._store, [0, 0]
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
                self._download(blob, folder)
                received = [received[0] + 1, received[1] + blob.size_bytes]
            for digest, content in encoded.items():
                store.blobs.receive([content], claims[digest], staging=folder)
            _check_roles(store, manifests.values())
            for digest, manifest in manifests.items():
                self._receive_signature(digest, manifest, public_key)
            with store.database.writing() as connection:
                for entry in recovered:
                    append(connection, entry, store.clock())
                _merge(connection, name, added, manifests)
                connection.execute("DELETE FROM drafts WHERE id = ?", [folder.name])
        return received[0], received[1]

    def _receive_signature(self, digest: str, manifest: Manifest, public_key: Path | None) -> None:
        """Download the signature of a version if there is none here; check it if a key is given."""
        key, path = _signature_key(digest), self._store.signatures / f"{digest}.json"
        is_here = path.exists()
        signature = (
            path.read_bytes() if is_here else read_object(self._remote, key) if self._remote.size(key) is not None else None
        )
        if public_key is not None:
            check_manifest_and_files(self._store, digest, manifest, signature, public_key)
        if signature is not None and not is_here:
            write_signature(self._store, digest, signature)

    def _download(self, blob: Blob, folder: Path) -> None:
        url = f"{self._remote.url}/{_blob_key(blob.digest)}"
        try:
            self._store.blobs.receive(self._remote.chunks(_blob_key(blob.digest)), blob, staging=folder)
        except MissingObjectError as error:
            raise DamagedObjectError(url, "it is missing") from error
        except DamagedBlobError as error:
            raise DamagedObjectError(url, f"expected sha256 {blob.digest}, found {error.found}") from error

    def sync(self, name: str, *, actor: str) -> tuple[Transfer, Transfer]:
        """Pull what is missing here, then push what is missing there, and return both.

        Args:
            name: model name.
            actor: who syncs; see ``pull``.

        Raises:
            NotFoundError: neither registry has the model.
            ConflictError: a version number means different versions.
        """
        is_shared = bool(self._log(checked_name(name)))
        pulled = self.pull(name, actor=actor) if is_shared else Transfer(name=name, url=self._remote.url)
        return pulled, self.push(name)

    # ------------------------------------------------------------------------------------------------------------ aliases

    def promote(  # noqa: PLR0913 - each is a fact of the promotion
        self,
        ref: str,
        alias: str,
        *,
        expect: int | Anywhere | None = ANYWHERE,
        actor: str | None = None,
        reason: str | None = None,
        force: bool = False,
        gates: GatePolicy | None = None,
        key: Path | None = None,
    ) -> AliasChange:
        """Point an alias of the shared registry to a version if its gates pass; the files they need are pulled.

        Args:
            ref: the version in the shared registry.
            alias: alias name.
            expect: the version the alias must currently point to; None for unset.
            actor: who promotes; None for the current user and host.
            reason: why; recorded in the log, required with ``force``.
            force: override failed gates; integrity cannot be overridden.
            gates: rules to use instead of ``gates.toml`` of the shared or the local registry.
            key: PEM file with a private key that signs the move.

        Raises:
            GateFailedError: gates failed.
            AliasMovedError: the alias is not where it was expected, or another process moved it meanwhile.
            NoExclusiveCreateError: the store cannot move aliases safely.
        """
        move = Move(alias, self._store.actor(actor), reason, expect, force, key)
        reference = Reference.parse(ref)
        name = reference.name
        theirs = self._log(name)
        if not theirs:
            raise self._no_model(name)
        version = self._find(theirs, reference)
        known = {key[1]: number for key, number in replay(theirs).aliases.items()}
        live = known.get(alias)
        self._check_expected(name, move, live, theirs)
        if live == version.version:
            return AliasChange(name=name, alias=alias, version=live, previous=live, changed=False)
        self._check_exclusive()
        results, notes = self._judge(version, move, live, gates)
        failed = [f"{result.gate}: {result.text}" for result in results if result.verdict == "failed"]
        if failed and not move.force:
            raise GateFailedError(version.ref, alias, failed)
        change = AliasChange(
            name=name,
            alias=alias,
            version=version.version,
            previous=live,
            forced=bool(failed),
            gates=tuple(results),
            notes=(*aliases.typo_notes(alias, known), *notes),
        )
        self._carry_out("promoted", change, move, theirs)
        return change

    def rollback(
        self,
        name: str,
        alias: str,
        *,
        expect: int | Anywhere | None = ANYWHERE,
        actor: str | None = None,
        reason: str | None = None,
    ) -> AliasChange:
        """Undo the last change of an alias of the shared registry. See ``Registry.rollback``."""
        return self._undo("rolled-back", name, Move(alias, self._store.actor(actor), reason, expect))

    def demote(
        self,
        name: str,
        alias: str,
        *,
        expect: int | Anywhere | None = ANYWHERE,
        actor: str | None = None,
        reason: str | None = None,
    ) -> AliasChange:
        """Remove an alias of the shared registry; the version stays. See ``Registry.demote``."""
        return self._undo("demoted", name, Move(alias, self._store.actor(actor), reason, expect))

    def _undo(self, verb: str, name: str, move: Move) -> AliasChange:
        theirs = self._log(checked_name(name))
        if not theirs:
            raise self._no_model(name)
        with closing(memory_database()) as connection:
            _merge(connection, name, theirs, self._manifests(theirs))
            if verb == "rolled-back":
                live, before = aliases.last_two(connection, name, move.alias)
            else:
                live, before = queries.find(connection, Reference(name, alias=move.alias)).version, None
        self._check_expected(name, move, live, theirs)
        self._check_exclusive()
        change = AliasChange(name=name, alias=move.alias, version=before, previous=live)
        self._carry_out(verb, change, move, theirs)
        return change

    def _judge(
        self, version: ModelVersion, move: Move, live: int | None, policy: GatePolicy | None
    ) -> tuple[list[GateResult], tuple[str, ...]]:
        """Pull both versions and run the gates on them, by the rules of the shared registry if it has any."""
        notes = []
        self.pull(version.ref, actor=move.actor)
        if live is not None:
            try:
                self.pull(f"{version.name}@{live}", actor=move.actor)
            except IntegrityError as error:
                notes.append(f"The live version is damaged, so the comparison uses its recorded accuracy: {error}")
        with TemporaryDirectory() as folder:
            root = self._store.root
            if self._remote.size(GATES_FILE) is not None:
                root = Path(folder)
                (root / GATES_FILE).write_bytes(read_object(self._remote, GATES_FILE))
            policy = policy or read_policy(root, version.name)
        return aliases.gate_results(self._store, version, move, live, policy), tuple(notes)

    def _check_expected(self, name: str, move: Move, live: int | None, theirs: Sequence[Event]) -> None:
        if move.expect is not ANYWHERE and move.expect != live:
            raise AliasMovedError(
                name, move.alias, expected=move.expect, found=live, by=_mover(theirs, move.alias), remote=self._remote.url
            )

    def _check_exclusive(self) -> None:
        if not self._remote.creates_exclusively():
            raise NoExclusiveCreateError(self._remote.url)

    def _carry_out(self, verb: str, change: AliasChange, move: Move, theirs: list[Event]) -> None:
        """Append the move to the log if the alias still points to ``change.previous``."""
        entry = aliases.entry_of(verb, change, move)

        def decide(events: list[Event]) -> Entry:
            if any(event.alias == change.alias for event in events[len(theirs) :]):
                found = replay(events).aliases.get((change.name, change.alias))
                by = _mover(events, change.alias)
                raise AliasMovedError(
                    change.name, change.alias, expected=change.previous, found=found, by=by, remote=self._remote.url
                )
            return entry

        append_entry(self._remote, change.name, theirs, decide, self._store.clock())

    # ------------------------------------------------------------------------------------------------------------- common

    def _scope(self, ref: str) -> tuple[str, int | None]:
        """Return the name of a model of the local registry, and the number of the version if the reference names one."""
        version = queries.resolve(self._store, ref)
        return version.name, version.version if "@" in ref else None

    def _log(self, name: str) -> list[Event]:
        self._logs[name] = read_log(self._remote, name, self._logs.get(name, ()))
        return self._logs[name]

    def _local_versions(self, name: str) -> list[ModelVersion]:
        return self._store.database.read(lambda connection: queries.list_versions(connection, name))

    def _no_model(self, name: str) -> NotFoundError:
        known = model_names(self._remote)
        hint = nearest(name, known, f"It has: {', '.join(known[:10])}." if known else "It is empty.")
        return NotFoundError(f"There is no model named {name!r} in {self._remote.url}. {hint}")


def _check_roles(store: Store, manifests: Iterable[Manifest]) -> None:
    for manifest in manifests:
        for role, blob in manifest.blobs.items():
            contents.check_role(role, store.blobs.path(blob.digest), manifest.facts)


def _blob_key(digest: str) -> str:
    return f"blobs/sha256/{digest[:2]}/{digest}"


def _signature_key(digest: str) -> str:
    return f"signatures/{digest}.json"


def _is_about(event: Event, version: int) -> bool:
    """Return whether an event belongs to one version; alias moves belong to the model."""
    return event.version == version and event.verb not in ALIAS_VERBS and event.verb != "superseded"


def _check_numbers(name: str, ours: Sequence[Event], theirs: Sequence[Event], url: str) -> None:
    """Raise ConflictError if a number means one version here and another one there."""
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


def _check_not_moved(event: Event, ours: Sequence[Event], theirs: Sequence[Event], url: str) -> None:
    """Raise AliasMovedError if the shared log has moves of an alias that the local log lacks."""
    unseen = [other for other in missing_from(theirs, ours) if other.alias == event.alias]
    if unseen:
        name, alias = str(event.name), str(event.alias)
        found = replay(theirs).aliases.get((name, alias))
        raise AliasMovedError(name, alias, expected=_from(event), found=found, by=_mover(theirs, alias), remote=url)


def _from(event: Event) -> int | None:
    before = event.detail.get("from")
    return before if isinstance(before, int) else None


def _mover(events: Sequence[Event], alias: str) -> str:
    """Return who moved an alias last."""
    return next((event.actor for event in reversed(events) if event.alias == alias), "")


def _taken_over(name: str, ours: Sequence[Event], added: Sequence[Event], url: str) -> Iterator[str]:
    """Yield a note for each alias that was moved here, and now follows the shared registry."""
    before, after = replay(ours).aliases, replay([*ours, *added]).aliases
    for alias in sorted({event.alias for event in added if event.alias}):
        was, now = before.get((name, alias)), after.get((name, alias))
        if was is not None and was != now:
            place = "unset" if now is None else f"{name}@{now}"
            yield f"{name}@{alias}: {name}@{was} -> {place}, as moved in {url} by {_mover(added, alias)}."


def _deleted_here(name: str, wanted: Mapping[tuple[str, int], str], checked: Mapping[str, Manifest]) -> Iterator[str]:
    gone = [f"{name}@{number}" for (_, number), digest in sorted(wanted.items()) if digest not in checked]
    if gone:
        yield f"{', '.join(gone)}: deleted here earlier, and not pulled again."


def _merge(connection: sqlite3.Connection, name: str, events: Sequence[Event], manifests: Mapping[str, Manifest]) -> None:
    """Copy events into the log of a database, and bring the tables of their model in line with it.

    Args:
        connection: open write transaction, or a database in memory.
        name: model name.
        events: events of the shared log that the database lacks.
        manifests: manifests of the versions that they create, by digest.
    """
    for event in events:
        entry = copied(event)
        append(connection, entry, datetime.fromisoformat(entry.detail["source"]["at"]))
    log = list(load_events(connection, "name = ?", [name]))
    state = replay(log)
    places = {event.version: event.seq for event in log if event.verb in CREATIONS}
    present = dict(connection.execute("SELECT version, manifest_digest FROM versions WHERE name = ?", [name]).fetchall())
    connection.execute("DELETE FROM aliases WHERE name = ?", [name])
    for (_, version), digest in state.versions.items():
        if version not in present:
            if digest not in manifests:
                raise DamagedManifestError(f"{name}@{version}", "the log names it, but it was not pulled")
            queries.add_version(connection, manifests[digest], digest, places[version])
    for (_, alias), version in state.aliases.items():
        if (name, version) not in state.versions:
            raise ConflictError(f"{name}@{alias} points to version {version}, which was deleted. Pull {name}@{version} first.")
        queries.set_alias(connection, name, alias, version)
    connection.execute("DELETE FROM tags WHERE name = ?", [name])
    connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", sorted(state.tags))
    connection.executemany("INSERT OR REPLACE INTO models VALUES (?, ?)", sorted(state.last_version.items()))
