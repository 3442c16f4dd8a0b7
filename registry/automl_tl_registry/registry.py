"""The door: ``Registry`` has one method for each verb, which hands on to the module that does it.

Modules of writing verbs are imported when they are called: a question must not wait for gates and archives to load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl_registry import index, queries
from automl_tl_registry.disk import Disk
from automl_tl_registry.errors import RoleNotFoundError
from automl_tl_registry.index import Filter, SortKey
from automl_tl_registry.store import Clock, Probe, Store, utc_now
from automl_tl_registry.values import ANYWHERE, AliasChange, Anywhere, Event, Facts, ModelVersion, Tenure, VersionView

if TYPE_CHECKING:
    from automl_tl_registry.comparison import Difference
    from automl_tl_registry.deletion import Collected, Pruned
    from automl_tl_registry.gates import GatePolicy
    from automl_tl_registry.rebuild import Rebuilt
    from automl_tl_registry.verification import Verification

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
        from automl_tl_registry import publication

        offer = publication.Offer(name, blobs, facts, self._store.actor(actor), parent, move, verify)
        return publication.publish(self._store, offer)

    def resolve(self, ref: str) -> ModelVersion:
        """The version that ``ref`` (``name``, ``name@3``, ``name@production``) means now.

        Raises:
            InvalidNameError: it isn't a reference.
            NotFoundError: there is no such version.
        """
        return queries.resolve(self._store, ref)

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
        wanted = Filter(name, alias, tag, last, sort).checked()
        return self._store.database.read(lambda connection: index.list_versions(connection, wanted))

    def load(self, ref: str) -> VersionView:
        """Facts and files of a version, every digest checked.

        Raises:
            NotFoundError: there is no such version.
            IntegrityError: a file is missing or damaged; nothing of the version may be used.
        """
        return queries.view_of(self._store, self.resolve(ref))

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
        from automl_tl_registry import aliases

        move = aliases.Move(alias, self._store.actor(actor), reason, expect, force)
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
        from automl_tl_registry import aliases

        return aliases.rollback(self._store, name, aliases.Move(alias, self._store.actor(actor), reason, expect))

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
        from automl_tl_registry import aliases

        return aliases.demote(self._store, name, aliases.Move(alias, self._store.actor(actor), reason, expect))

    def history(self, name: str | None = None, *, alias: str | None = None, at: datetime | date | None = None) -> list[Tenure]:
        """Which alias was at which version from when to when, who and why; ``at`` keeps what was in force then."""
        return queries.history(self._store, name, alias=alias, at=at)

    def events(self, name: str | None = None, *, last: int | None = None) -> list[Event]:
        """The log, oldest first; of one model if ``name`` is given, the newest ``last`` of them."""
        return queries.events(self._store, name, last=last)

    # ---------------------------------------------------------------------------------------------- asking and tidying

    def diff(self, before: str, after: str) -> Difference:
        """What lies between two versions: settings, classes, data, metrics, and image by image what they predict."""
        from automl_tl_registry.comparison import diff

        return diff(self._store, before, after)

    def card(self, ref: str) -> str:
        """Model card of a version, Markdown, from facts only."""
        from automl_tl_registry.card import model_card

        return model_card(self.resolve(ref))

    def tag(self, ref: str, *, add: Iterable[str] = (), remove: Iterable[str] = (), actor: str | None = None) -> ModelVersion:
        """The version, with tags stuck to it or taken off."""
        from automl_tl_registry import aliases

        return aliases.tag(self._store, ref, add=add, remove=remove, actor=self._store.actor(actor))

    def verify(self, ref: str | None = None, *, probe: bool = False) -> Verification:
        """Whether everything, or one version, is as it was published; ``probe`` predicts the probe sets again."""
        from automl_tl_registry.verification import verify

        return verify(self._store, ref, probe=probe)

    def gc(self, *, dry_run: bool = False, actor: str | None = None) -> Collected:
        """Remove what no version and no publication in progress needs; with ``dry_run`` only say what."""
        from automl_tl_registry import deletion

        return deletion.collect(self._store, dry_run=dry_run, actor=self._store.actor(actor))

    def delete(self, ref: str, *, actor: str | None = None, reason: str | None = None) -> ModelVersion:
        """Delete the version ``ref`` (by number); refused while it is, or lately was, aliased."""
        from automl_tl_registry import deletion

        return deletion.delete(self._store, ref, actor=self._store.actor(actor), reason=reason)

    def prune(
        self, name: str, *, keep_best: int = 5, keep_last: int = 10, dry_run: bool = False, actor: str | None = None
    ) -> Pruned:
        """Delete versions that are neither among the best by accuracy, nor the last, nor (lately) aliased."""
        from automl_tl_registry import deletion

        actor = self._store.actor(actor)
        return deletion.prune(self._store, name, keep_best=keep_best, keep_last=keep_last, dry_run=dry_run, actor=actor)

    def export(self, ref: str, target: Path) -> Path:
        """Write a version to a self-contained folder, ``.tar`` or ``.zip``; the same version gives the same bytes."""
        from automl_tl_registry.exchange import export

        return export(self._store, ref, Path(target))

    def import_(self, source: Path, *, name: str | None = None, actor: str | None = None) -> ModelVersion:
        """The version in an export, published here unless it is here already."""
        from automl_tl_registry.exchange import import_

        return import_(self._store, Path(source), name=name, actor=self._store.actor(actor))

    def rebuild(self, *, actor: str | None = None) -> Rebuilt:
        """Rebuild the database from blobs and the mirrored log."""
        from automl_tl_registry.rebuild import rebuild

        return rebuild(self._store, actor=self._store.actor(actor))
