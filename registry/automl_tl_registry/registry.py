"""``Registry``: one method per verb, each delegating to the module that implements it.

Comparison, gates, exchange and recovery are imported when called, so that queries start quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl_registry import deletion, publication, queries
from automl_tl_registry.errors import NotFoundError, nearest
from automl_tl_registry.queries import SortKey
from automl_tl_registry.storage import Disk
from automl_tl_registry.store import Clock, PredictionCheck, Store, utc_now
from automl_tl_registry.values import (
    ANYWHERE,
    AliasChange,
    Anywhere,
    Event,
    Facts,
    Listing,
    ModelVersion,
    Signature,
    Tenure,
    Transfer,
    VersionView,
)

if TYPE_CHECKING:
    from automl_tl_registry.comparison import Difference
    from automl_tl_registry.gates import GatePolicy
    from automl_tl_registry.recovery import Rebuilt, Verification
    from automl_tl_registry.sharing import SharedRegistry


class Registry:
    """Versions of models in the folder ``root``.

    Opening and querying a registry writes nothing. A missing folder reads as an empty registry and is created by the first
    ``publish``. Any number of objects, threads and processes may use the same folder concurrently.
    """

    def __init__(
        self, root: Path, *, clock: Clock = utc_now, check_predictions: PredictionCheck | None = None, disk: Disk | None = None
    ) -> None:
        """Open the registry in ``root``.

        Args:
            root: folder of the registry.
            clock: returns the current time.
            check_predictions: raises if the files of a version do not reproduce its reference predictions.
            disk: writes files; tests inject errors here.
        """
        self._store = Store(Path(root), disk or Disk(), clock, check_predictions)

    def __repr__(self) -> str:
        return f"Registry({str(self.root)!r})"

    def _repr_html_(self) -> str:
        return self.versions()._repr_html_()

    @property
    def root(self) -> Path:
        """Folder of the registry."""
        return self._store.root

    def publish(
        self,
        name: str,
        blobs: Mapping[str, Path],
        facts: Facts,
        *,
        parent: str | None = None,
        actor: str | None = None,
        verify: Callable[[VersionView], object] | None = None,
    ) -> ModelVersion:
        """Publish the next version of a model from finished safetensors files, and return it.

        Args:
            name: model name; its first version creates the model.
            blobs: files by role (``encoder``, ``head``, ``predictions`` ...).
            facts: the manifest.
            parent: reference to the version this one was derived from.
            actor: who publishes; None for the current user and host.
            verify: called with the stored files before the version is visible; an exception cancels the publication.

        Raises:
            RegistryError: nothing was published.
        """
        actor = self._store.actor(actor)
        return publication.publish(self._store, name, blobs, facts, actor=actor, parent=parent, verify=verify)

    def resolve(self, ref: str) -> ModelVersion:
        """Return the version a reference currently points to."""
        return queries.resolve(self._store, ref)

    def versions(
        self,
        name: str | None = None,
        *,
        alias: str | None = None,
        tag: str | None = None,
        sort: SortKey = "created",
        last: int | None = None,
    ) -> Listing[ModelVersion]:
        """Return the versions that match all conditions, with their current aliases and tags.

        Args:
            name: only this model.
            alias: only versions with this alias.
            tag: only versions with this tag.
            sort: newest first (``created``), by name, or best first (``accuracy``, ``latency``, ``size``).
            last: only the newest ``last`` matches, taken before sorting.

        Raises:
            InvalidNameError: a name is malformed.
        """
        self._store.check_not_orphaned()
        return Listing(
            self._store.database.read(
                lambda connection: queries.list_versions(connection, name, alias=alias, tag=tag, sort=sort, last=last)
            )
        )

    def load(self, ref: str) -> VersionView:
        """Return the facts and files of a version after checking every digest."""
        return queries.view_of(self._store, self.resolve(ref))

    def path(self, ref: str, role: str) -> Path:
        """Return the path of one file of a version after checking its digest; do not modify the file.

        Args:
            ref: reference to the version.
            role: role of the blob, e.g. ``head``.

        Raises:
            NotFoundError: there is no such version or role.
            IntegrityError: the file is missing or damaged.
        """
        version = self.resolve(ref)
        if role not in version.blobs:
            listed = f"It has: {', '.join(sorted(version.blobs))}."
            raise NotFoundError(f"{version.ref} has no blob {role!r}. {nearest(role, version.blobs, listed)}")
        return self._store.blobs.checked(version.blobs[role].digest)

    # ------------------------------------------------------------------------------------------------------- aliases

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
        """Point an alias to a version if its gates pass.

        Args:
            ref: reference to the version.
            alias: alias name.
            expect: the version the alias must currently point to; None for unset.
            actor: who promotes; None for the current user and host.
            reason: why; recorded in the log, required with ``force``.
            force: override failed gates; integrity cannot be overridden.
            gates: rules to use instead of ``gates.toml``.
            key: PEM file with a private key that signs the move.

        Returns:
            The change, with the results of the gates; ``changed`` is False if the alias was there already.

        Raises:
            GateFailedError: gates failed; the message has their figures.
            AliasMovedError: the alias is not at the expected version, or moved in the meantime.
        """
        from automl_tl_registry import aliases

        move = aliases.Move(alias, self._store.actor(actor), reason, expect, force, key)
        return aliases.promote(self._store, ref, move, gates)

    def rollback(
        self,
        name: str,
        alias: str,
        *,
        expect: int | Anywhere | None = ANYWHERE,
        actor: str | None = None,
        reason: str | None = None,
        key: Path | None = None,
    ) -> AliasChange:
        """Undo the last change of an alias that was not yet undone; repeated calls go further back.

        Args:
            name: model name.
            alias: alias name.
            expect: the version the alias must currently point to; None for unset.
            actor: who makes the change; None for the current user and host.
            reason: why; recorded in the log.
            key: PEM file with a private key that signs the move.

        Returns:
            The change; its version is None if the alias was unset before.

        Raises:
            ConflictError: there is no earlier version, or it was deleted.
            AliasMovedError: the alias is not at the expected version, or moved in the meantime.
        """
        from automl_tl_registry import aliases

        move = aliases.Move(alias, self._store.actor(actor), reason, expect, key=key)
        return aliases.rollback(self._store, name, move)

    def demote(
        self,
        name: str,
        alias: str,
        *,
        expect: int | Anywhere | None = ANYWHERE,
        actor: str | None = None,
        reason: str | None = None,
        key: Path | None = None,
    ) -> AliasChange:
        """Remove an alias; the version stays.

        Args:
            name: model name.
            alias: alias name.
            expect: the version the alias must currently point to; None for unset.
            actor: who makes the change; None for the current user and host.
            reason: why; recorded in the log.
            key: PEM file with a private key that signs the move.

        Returns:
            The change; its version is None.

        Raises:
            NotFoundError: the alias is not set.
            AliasMovedError: the alias is not at the expected version, or moved in the meantime.
        """
        from automl_tl_registry import aliases

        move = aliases.Move(alias, self._store.actor(actor), reason, expect, key=key)
        return aliases.demote(self._store, name, move)

    def history(
        self, name: str | None = None, *, alias: str | None = None, at: datetime | date | None = None
    ) -> Listing[Tenure]:
        """Return which alias pointed to which version, from when to when, by whom and why; oldest first.

        Args:
            name: only this model.
            alias: only this alias.
            at: only tenures in force at this time, or at any time of this local day.
        """
        return Listing(queries.history(self._store, name, alias=alias, at=at))

    def events(self, name: str | None = None, *, last: int | None = None) -> list[Event]:
        """Return the event log, oldest first.

        Args:
            name: only events of this model.
            last: only the newest ``last`` events.
        """
        return queries.events(self._store, name, last=last)

    # ---------------------------------------------------------------------------------------------- compare and maintain

    def diff(self, before: str, after: str) -> Difference:
        """Compare two versions: settings, classes, data, metrics and predictions per image.

        Args:
            before: reference to the older version.
            after: reference to the newer version.

        Returns:
            What differs; ``comparison`` and ``images`` are None where one version has no such file.

        Raises:
            NotFoundError: one of them does not exist.
            IntegrityError: a compared blob is damaged.
        """
        from automl_tl_registry.comparison import diff

        return diff(self._store, before, after)

    def card(self, ref: str) -> str:
        """Return the model card of a version in Markdown."""
        from automl_tl_registry.exchange import model_card

        return model_card(self.resolve(ref))

    def tag(self, ref: str, *, add: Iterable[str] = (), remove: Iterable[str] = (), actor: str | None = None) -> ModelVersion:
        """Add and remove tags of a version, and return it with its new tags.

        Args:
            ref: reference to the version.
            add: tags to add; a tag that is also in ``remove`` is not added.
            remove: tags to remove.
            actor: who makes the change; None for the current user and host.

        Raises:
            UsageError: a tag is malformed.
            NotFoundError: there is no such version.
        """
        from automl_tl_registry import aliases

        return aliases.tag(self._store, ref, add=add, remove=remove, actor=self._store.actor(actor))

    def sign(self, ref: str, key: Path, *, actor: str | None = None) -> Signature:
        """Sign a version with OpenSSF model signing, and return the signature; nothing changes if the key signed it before.

        Args:
            ref: reference to the version.
            key: PEM file with an elliptic-curve private key; the environment variable TL_KEY_PASSWORD decrypts it.
            actor: who signs; None for the current user and host.

        Raises:
            KeyFileError: the key is not usable.
            IntegrityError: a file of the version is damaged.
            MissingPackageError: the extra ``signing`` is not installed.
        """
        from automl_tl_registry.signing import sign

        return sign(self._store, ref, Path(key), actor=self._store.actor(actor))

    def verify(self, ref: str | None = None, *, predictions: bool = False, public_key: Path | None = None) -> Verification:
        """Check every byte of the registry, or of one version; return counts and problems. Damage is reported, not raised.

        Args:
            ref: reference to one version; None for everything.
            predictions: also reproduce the reference predictions.
            public_key: PEM file; also check that every version is signed with this key.

        Raises:
            NotFoundError: there is no such version.
        """
        from automl_tl_registry.recovery import verify

        return verify(self._store, ref, predictions=predictions, public_key=public_key)

    def gc(self, *, dry_run: bool = False, actor: str | None = None) -> deletion.Collected:
        """Remove files that no version and no publication in progress needs, and return them with the number of drafts.

        Args:
            dry_run: only report what would be removed.
            actor: who makes the change; None for the current user and host.
        """
        return deletion.collect(self._store, dry_run=dry_run, actor=self._store.actor(actor))

    def delete(self, ref: str, *, actor: str | None = None, reason: str | None = None) -> ModelVersion:
        """Delete and return a version, unless it has or recently had an alias.

        Args:
            ref: the version by number, ``name@3``.
            actor: who makes the change; None for the current user and host.
            reason: why; recorded in the log.

        Raises:
            NotFoundError: there is no such version.
            ConflictError: the version has, or recently had, an alias.
        """
        return deletion.delete(self._store, ref, actor=self._store.actor(actor), reason=reason)

    def prune(
        self, name: str, *, keep_best: int = 5, keep_last: int = 10, dry_run: bool = False, actor: str | None = None
    ) -> deletion.Pruned:
        """Delete versions that are neither among the best by accuracy, nor the latest, nor (recently) aliased.

        Args:
            name: model name.
            keep_best: number of most accurate versions to keep.
            keep_last: number of latest versions to keep.
            dry_run: only report what would be deleted.
            actor: who deletes them; None for the current user and host.

        Returns:
            References of the deleted versions, and why each of the others was kept.
        """
        actor = self._store.actor(actor)
        return deletion.prune(self._store, name, keep_best=keep_best, keep_last=keep_last, dry_run=dry_run, actor=actor)

    def export(self, ref: str, target: Path) -> Path:
        """Export a version to ``target``, and return that; the same version gives the same bytes.

        Args:
            ref: reference to the version.
            target: the folder, ``.tar`` or ``.zip`` to write.

        Raises:
            ConflictError: ``target`` contains something else.
            IntegrityError: a file of the version is damaged.
        """
        from automl_tl_registry.exchange import export

        return export(self._store, ref, Path(target))

    def import_(
        self, source: Path, *, name: str | None = None, actor: str | None = None, public_key: Path | None = None
    ) -> ModelVersion:
        """Import an export, and return its version; the one imported before, if there is one.

        Args:
            source: a folder, ``.tar`` or ``.zip``.
            name: model name to use instead of the exported one.
            actor: who imports it; None for the current user and host.
            public_key: PEM file; the version must be signed with this key.

        Raises:
            UnsafeArchiveError: it contains something that an export never contains.
            IntegrityError: its files do not match its manifest.
        """
        from automl_tl_registry.exchange import import_

        return import_(self._store, Path(source), name=name, actor=self._store.actor(actor), public_key=public_key)

    # ------------------------------------------------------------------------------------------------------------ sharing

    def shared(self, url: str) -> SharedRegistry:
        """Return the shared registry at a URL, to query it and move its aliases. Nothing is read yet."""
        from automl_tl_registry.remote_store import open_store
        from automl_tl_registry.sharing import SharedRegistry

        return SharedRegistry(self._store, open_store(url))

    def push(self, ref: str, url: str, *, repair: bool = False, key: Path | None = None) -> Transfer:
        """Upload a version, or with a bare name the whole model, to a shared registry. See ``SharedRegistry.push``.

        Args:
            ref: reference to the version, or a name.
            url: the shared registry; ``oci://HOST/REPOSITORY:TAG`` for one version as an OCI artifact.
            repair: upload every file again, to replace damaged ones.
            key: PEM file with a private key; versions that are not signed yet are signed with it first.
        """
        is_oci = url.startswith("oci://")
        if key is not None:
            from automl_tl_registry.signing import read_signature

            for version in [self.resolve(ref)] if is_oci or "@" in ref else self.versions(ref):
                if read_signature(self._store, version) is None:
                    self.sign(version.ref, key)
        if is_oci:
            from automl_tl_registry.oci import push

            return push(self._store, ref, url, repair=repair)
        return self.shared(url).push(ref, repair=repair)

    def pull(self, ref: str, url: str, *, actor: str | None = None, public_key: Path | None = None) -> Transfer:
        """Download a version, or with a bare name the whole model. See ``SharedRegistry.pull``.

        Args:
            ref: ``NAME``, ``NAME@VERSION`` or ``NAME@ALIAS`` in the shared registry.
            url: the shared registry, or the address of an OCI artifact.
            actor: who pulls; None for the current user and host.
            public_key: PEM file; every version must be signed with this key.
        """
        actor = self._store.actor(actor)
        if url.startswith("oci://"):
            from automl_tl_registry.oci import pull

            return pull(self._store, ref, url, actor=actor, public_key=public_key)
        return self.shared(url).pull(ref, actor=actor, public_key=public_key)

    def sync(self, name: str, url: str, *, actor: str | None = None) -> tuple[Transfer, Transfer]:
        """Pull what is missing here, then push what is missing there. See ``SharedRegistry.sync``."""
        return self.shared(url).sync(name, actor=self._store.actor(actor))

    def rebuild(self, *, actor: str | None = None) -> Rebuilt:
        """Restore the database from the blobs and the mirror of the log."""
        from automl_tl_registry.recovery import rebuild

        return rebuild(self._store, actor=self._store.actor(actor))
