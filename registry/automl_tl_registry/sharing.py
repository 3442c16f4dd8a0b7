"""Share models through a store that everybody reaches, without a server: ``SharedRegistry``, one method per verb.

    blobs/sha256/ab/abcdef...         files and manifests, named by the sha256 of their content
    signatures/DIGEST.json            signature of the version whose manifest has this digest
    models/NAME/log/00000001.json     the log: see ``shared_log``
    gates.toml                        optional: gate rules for ``promote``, used instead of the local ones

**Push** uploads missing files first and then appends to the log, so a version is visible when all of it is there. Killed at
any step, it leaves files that no log names, and the next push goes on. **Pull** receives files as a publication does: digests
are checked, and one transaction makes versions, events, aliases and tags visible.

The shared log decides. A version number stands for one version: two different ones are a conflict. Aliases follow the shared
log: ``pull`` takes over its moves, ``push`` refuses if both sides moved the same alias. Deletions stay where they are made: one
in the shared registry frees its storage, and leaves the copies that were pulled.
"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

from automl_tl_registry import queries, shared_aliases, shared_maintenance
from automl_tl_registry.aliases import Move
from automl_tl_registry.deletion import Collected
from automl_tl_registry.errors import UsageError
from automl_tl_registry.gates import GatePolicy
from automl_tl_registry.pull import pull
from automl_tl_registry.push import push
from automl_tl_registry.recovery import Verification
from automl_tl_registry.remote_store import RemoteStore
from automl_tl_registry.shared_models import SharedModels
from automl_tl_registry.store import Store
from automl_tl_registry.values import (
    ANYWHERE,
    AliasChange,
    Anywhere,
    Listing,
    ModelVersion,
    Reference,
    Tenure,
    Transfer,
    checked_name,
)


class SharedRegistry:
    """A shared registry, used from a local one."""

    def __init__(self, store: Store, remote: RemoteStore) -> None:
        """Share between a local registry and a shared one; nothing is read yet."""
        self._store, self._models = store, SharedModels(store, remote)

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
            self._models.read(
                name, lambda connection: queries.list_versions(connection, name, alias=alias, tag=tag, sort=sort, last=last)
            )
        )

    def resolve(self, ref: str) -> ModelVersion:
        """Return the version that a reference points to in the shared registry."""
        reference = Reference.parse(ref)
        return self._models.find(self._models.existing_log(reference.name), reference)

    def history(
        self, name: str | None = None, *, alias: str | None = None, at: datetime | date | None = None
    ) -> Listing[Tenure]:
        """Return what was live when in the shared registry. See ``Registry.history``."""
        return Listing(self._models.read(name, lambda connection: queries.find_tenures(connection, name, alias=alias, at=at)))

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
        return push(self._models, ref, repair=repair)

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
        return pull(self._models, ref, actor=actor, public_key=public_key)

    def sync(self, name: str, *, actor: str) -> tuple[Transfer, Transfer]:
        """Pull what is missing here, then push what is missing there, and return both.

        Args:
            name: model name.
            actor: who syncs; see ``pull``.

        Raises:
            NotFoundError: neither registry has the model.
            ConflictError: a version number means different versions.
        """
        is_shared = bool(self._models.log(checked_name(name)))
        pulled = self.pull(name, actor=actor) if is_shared else Transfer(name=name, url=self._models.remote.url)
        return pulled, self.push(name)

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
        return shared_aliases.promote(self._models, ref, move, gates)

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
        """Undo the last change of an alias of the shared registry. See ``Registry.rollback``."""
        move = Move(alias, self._store.actor(actor), reason, expect, key=key)
        return shared_aliases.undo(self._models, "rolled-back", name, move)

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
        """Remove an alias of the shared registry; the version stays. See ``Registry.demote``."""
        move = Move(alias, self._store.actor(actor), reason, expect, key=key)
        return shared_aliases.undo(self._models, "demoted", name, move)

    def verify(self, ref: str | None = None, *, predictions: bool = False, public_key: Path | None = None) -> Verification:
        """Read and check every object of the shared registry. Damage is reported, not raised. See ``Registry.verify``.

        Args:
            ref: reference to one version; None for everything.
            predictions: refused, because reference predictions need the files on this machine.
            public_key: PEM file; also check that versions and aliases are signed with this key.

        Raises:
            UsageError: ``predictions`` is set.
            NotFoundError: there is no such version.
            RemoteError: the store cannot be reached.
        """
        if predictions:
            raise UsageError("--predictions needs the files here: `tl registry pull`, then verify without --remote.")
        return shared_maintenance.verify(self._models, ref, public_key)

    def delete(self, ref: str, *, actor: str | None = None, reason: str | None = None) -> ModelVersion:
        """Delete a version from the shared registry; copies that were pulled stay. See ``Registry.delete``.

        Args:
            ref: the version by number, ``name@3``.
            actor: who deletes it; None for the current user and host.
            reason: why; recorded in the log.

        Raises:
            NotFoundError: there is no such version.
            ConflictError: the version has, or recently had, an alias there.
            NoExclusiveCreateError: the store cannot delete safely.
        """
        return shared_maintenance.delete(self._models, ref, actor=self._store.actor(actor), reason=reason)

    def gc(self, *, dry_run: bool = False) -> Collected:
        """Remove files that no version has needed for a week, and return them.

        Args:
            dry_run: only report what would be removed.

        Raises:
            DamagedObjectError: a log or a manifest is damaged, so what is needed is not known.
            NoExclusiveCreateError: the store does not tell how old its files are.
        """
        return shared_maintenance.collect(self._models, dry_run=dry_run)
