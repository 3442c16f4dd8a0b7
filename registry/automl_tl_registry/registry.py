"""The door: ``Registry`` has one method for each verb, each of which hands on to the module that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path

from automl_tl_registry import aliases, index, loading, publishing
from automl_tl_registry import history as past
from automl_tl_registry.aliases import ANYWHERE, AliasChange, Anywhere, Move
from automl_tl_registry.disk import Disk
from automl_tl_registry.errors import RoleNotFoundError
from automl_tl_registry.gates import GatePolicy
from automl_tl_registry.index import Filter, SortKey
from automl_tl_registry.names import checked_alias, checked_name
from automl_tl_registry.store import Clock, Probe, Store, utc_now
from automl_tl_registry.values import Event, Facts, ModelVersion, Tenure, VersionView

__all__ = ["Registry"]


class Registry:
    """Versions of models in the folder ``root``.

    Opening one and asking it writes nothing; a folder that isn't there reads as an empty registry and is made by the first
    ``publish``. Any number of objects, threads and processes may use one folder at once.
    """

    def __init__(self, root: Path, *, clock: Clock = utc_now, probe: Probe | None = None, disk: Disk | None = None) -> None:
        """A registry in ``root``.

        Args:
            root: its folder.
            clock: gives the present moment.
            probe: predicts the probe set again from the files it is given, and raises if that disagrees.
            disk: how files are written; tests put faults here.
        """
        self._store = Store(Path(root), disk or Disk(), clock, probe)

    def __repr__(self) -> str:
        return f"Registry({str(self.root)!r})"

    @property
    def root(self) -> Path:
        """Folder of the registry."""
        return self._store.root

    def publish(  # noqa: PLR0913 - each is a fact of the version
        self,
        name: str,
        blobs: Mapping[str, Path],
        facts: Facts,
        *,
        parent: str | None = None,
        actor: str | None = None,
        verify: Callable[[VersionView], object] | None = None,
        move: bool = False,
    ) -> ModelVersion:
        """The next version of ``name``, made of finished safetensors files.

        Args:
            name: of the model; its first version makes it.
            blobs: files by role (``encoder``, ``head``, ``predictions`` ...).
            facts: the manifest.
            parent: reference to the version that this one was made from.
            actor: who publishes; absent means the user and machine.
            verify: called with the stored files before the version is visible; what it raises stops the publication.
            move: take the files away once the version exists, without copying where that is possible.

        Raises:
            RegistryError: nothing was published.
        """
        offer = publishing.Offer(name, blobs, facts, self._store.actor(actor), parent, move, verify)
        return publishing.publish(self._store, offer)

    def resolve(self, ref: str) -> ModelVersion:
        """The version that ``ref`` (``name``, ``name@3``, ``name@production``) means now.

        Raises:
            InvalidNameError: it isn't a reference.
            NotFoundError: there is no such version.
        """
        return loading.resolve(self._store, ref)

    def versions(
        self,
        name: str | None = None,
        *,
        alias: str | None = None,
        tag: str | None = None,
        sort: SortKey = "created",
        last: int | None = None,
    ) -> list[ModelVersion]:
        """Versions that fulfil all conditions, best or newest first; ``last`` keeps the newest before they are sorted."""
        self._store.check_not_orphaned()
        wanted = Filter(name and checked_name(name), alias and checked_alias(alias), tag, last, sort)
        return self._store.database.read(lambda connection: index.list_versions(connection, wanted))

    def load(self, ref: str) -> VersionView:
        """Facts and files of a version, every digest checked.

        Raises:
            NotFoundError: there is no such version.
            IntegrityError: a file is missing or damaged; nothing of the version may be used.
        """
        return loading.view_of(self._store, self.resolve(ref))

    def path(self, ref: str, role: str) -> Path:
        """Path of one file of a version, its digest checked; the file must not be changed."""
        version = self.resolve(ref)
        if role not in version.blobs:
            raise RoleNotFoundError(version.ref, role, sorted(version.blobs))
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
    ) -> AliasChange:
        """Put ``alias`` at the version ``ref``, if the gates let it.

        Args:
            ref: the version.
            alias: any alias; ``production`` is gated by default.
            expect: number of the version that the alias should be at now, ``None`` for unset, absent for anywhere.
            actor: who does it; absent means the user and machine.
            reason: why; recorded.
            force: against the gates; needs a reason. A damaged version is refused all the same.
            gates: rules to use instead of those in ``gates.toml``.

        Raises:
            GateRefusedError: gates refused; their figures are in the text.
            AliasMovedError: the alias isn't where it was expected, or moved meanwhile.
        """
        move = Move(alias, self._store.actor(actor), reason, expect, force)
        return aliases.promote(self._store, ref, move, gates)

    def rollback(
        self,
        name: str,
        alias: str,
        *,
        expect: int | Anywhere | None = ANYWHERE,
        actor: str | None = None,
        reason: str | None = None,
    ) -> AliasChange:
        """Undo the last change of ``alias`` that wasn't undone yet; again and again it goes further back."""
        return aliases.rollback(self._store, name, Move(alias, self._store.actor(actor), reason, expect))

    def demote(
        self,
        name: str,
        alias: str,
        *,
        expect: int | Anywhere | None = ANYWHERE,
        actor: str | None = None,
        reason: str | None = None,
    ) -> AliasChange:
        """Take ``alias`` away; the version stays."""
        return aliases.demote(self._store, name, Move(alias, self._store.actor(actor), reason, expect))

    def history(self, name: str | None = None, *, alias: str | None = None, at: datetime | date | None = None) -> list[Tenure]:
        """Which alias was at which version from when to when, who and why; ``at`` keeps what was in force then."""
        return past.history(self._store, name, alias=alias, at=at)

    def events(self, name: str | None = None, *, last: int | None = None) -> list[Event]:
        """The log, oldest first; of one model if ``name`` is given, the newest ``last`` of them."""
        return past.events(self._store, name, last=last)
