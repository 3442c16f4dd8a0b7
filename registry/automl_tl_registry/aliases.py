"""Move aliases (``promote``, ``rollback``, ``demote``) and edit tags.

Every alias change is compare-and-set. It is decided outside the transaction (gates read files and may take seconds) and made
inside one, if the alias is still where the decision found it; otherwise AliasMovedError. ``rollback`` undoes changes one by
one, like an editor.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from automl_tl_registry.errors import AliasMovedError, ConflictError, GateFailedError, IntegrityError, UsageError
from automl_tl_registry.gates import GatePolicy, judge, read_policy
from automl_tl_registry.journal import Entry, append, load_events
from automl_tl_registry.queries import aliases_of, find, resolve, set_alias, view_of
from automl_tl_registry.signing import sign_alias
from automl_tl_registry.storage import check_writable
from automl_tl_registry.store import Store
from automl_tl_registry.values import (
    ANYWHERE,
    KNOWN_ALIASES,
    AliasChange,
    Anywhere,
    GateResult,
    ModelVersion,
    Reference,
    VersionView,
    checked_alias,
    checked_name,
    checked_tag,
    checked_text,
)


@dataclass(frozen=True)
class Move:
    """A requested alias change. ``expect`` is the version the alias must currently point to, None for unset."""

    alias: str
    actor: str
    reason: str | None = None
    expect: int | Anywhere | None = ANYWHERE
    force: bool = False
    key: Path | None = None  # private key that signs the move

    def __post_init__(self) -> None:
        checked_alias(self.alias)
        if self.reason is not None:
            checked_text(self.reason, what="a reason")
        if self.force and not (self.reason or "").strip():
            raise UsageError("The promotion was forced without a reason. Overrides are recorded; add `--reason TEXT`.")


def promote(store: Store, ref: str, move: Move, policy: GatePolicy | None = None) -> AliasChange:
    """Point an alias to a version if its gates pass. See ``Registry.promote``."""
    version = resolve(store, ref)
    name, alias = version.name, move.alias
    known = store.database.read(lambda connection: aliases_of(connection, name))
    live = known.get(alias)
    _check_expected(name, move, live)
    if live == version.version:
        return AliasChange(name=name, alias=alias, version=live, previous=live, changed=False)
    check_writable(store.root)  # the gates take seconds
    results = gate_results(store, version, move, live, policy or read_policy(store.root, name))
    failed = [f"{result.gate}: {result.text}" for result in results if result.verdict == "failed"]
    if failed and not move.force:
        raise GateFailedError(version.ref, alias, failed)
    change = AliasChange(
        name=name, alias=alias, version=version.version, previous=live, forced=bool(failed), gates=tuple(results)
    )
    _carry_out(store, "promoted", change, move)
    return change.model_copy(update={"notes": typo_notes(alias, known)})


def rollback(store: Store, name: str, move: Move) -> AliasChange:
    """Undo the last change of an alias that was not yet undone. See ``Registry.rollback``."""
    checked_name(name)
    live, before = store.database.read(lambda connection: last_two(connection, name, move.alias))
    _check_expected(name, move, live)
    if before is not None:
        view_of(store, resolve(store, f"{name}@{before}"))
    change = AliasChange(name=name, alias=move.alias, version=before, previous=live)
    _carry_out(store, "rolled-back", change, move)
    return change


def demote(store: Store, name: str, move: Move) -> AliasChange:
    """Remove an alias. See ``Registry.demote``."""
    checked_name(name)
    live = resolve(store, f"{name}@{move.alias}").version
    _check_expected(name, move, live)
    change = AliasChange(name=name, alias=move.alias, version=None, previous=live)
    _carry_out(store, "demoted", change, move)
    return change


def _check_expected(name: str, move: Move, live: int | None) -> None:
    if move.expect is not ANYWHERE and move.expect != live:
        raise AliasMovedError(name, move.alias, expected=move.expect, found=live)


def gate_results(store: Store, version: ModelVersion, move: Move, live: int | None, policy: GatePolicy) -> list[GateResult]:
    """Run the gates of a move, and return their results.

    Args:
        store: the registry with the files of both versions.
        version: the candidate.
        move: the requested move.
        live: number of the version the alias points to now, if any.
        policy: the rules.

    Raises:
        IntegrityError: the candidate is damaged, and the move is forced.
    """
    gated = move.alias in policy.aliases
    try:
        candidate = (version, view_of(store, version))
    except IntegrityError as error:
        if move.force:
            raise
        return [GateResult(gate="integrity", verdict="failed", text=str(error))]
    incumbent = _incumbent(store, resolve(store, f"{version.name}@{live}")) if gated and live is not None else None
    return judge(policy, candidate, incumbent, gated=gated, store=store)


def _incumbent(store: Store, live: ModelVersion) -> VersionView:
    """Return the live version, with its predictions only if intact: a damaged version must not block its successor."""
    blob = live.blobs.get("predictions")
    paths = {"predictions": store.blobs.path(blob.digest)} if blob and store.blobs.is_sound(blob.digest) else {}
    return VersionView(live.name, live.version, live.facts, paths)


def _carry_out(store: Store, verb: str, change: AliasChange, move: Move) -> None:
    """Record a change if the alias still points to ``change.previous``."""
    entry = entry_of(verb, change, move)
    with store.database.writing() as connection:
        current = aliases_of(connection, change.name).get(change.alias)
        if current != change.previous:
            raise AliasMovedError(change.name, change.alias, expected=change.previous, found=current)
        if change.version is not None:
            find(connection, Reference(change.name, change.version))  # it may have been deleted in the meantime
        set_alias(connection, change.name, change.alias, change.version)
        append(connection, entry, store.clock())
    store.mirror.follow(store.database)


def entry_of(verb: str, change: AliasChange, move: Move) -> Entry:
    """Return the entry of the log for an alias change.

    Args:
        verb: promoted, rolled-back or demoted.
        change: where the alias is and goes, with the results of the gates.
        move: who moves it, and why.
    """
    detail: dict[str, object] = {"from": change.previous}
    if move.reason:
        detail["reason"] = move.reason
    if change.gates:
        detail |= {"gates": [result.model_dump() for result in change.gates], "forced": change.forced}
    entry = Entry(verb, move.actor, change.name, change.version, change.alias, detail)
    if move.key is not None:
        detail["signature"] = sign_alias(entry, move.key)
    return entry


def last_two(connection: sqlite3.Connection, name: str, alias: str) -> tuple[int | None, int | None]:
    """Return the version of an alias, and the one before the last change that was not undone; None for unset.

    Args:
        connection: open transaction.
        name: model name.
        alias: alias name.

    Raises:
        NotFoundError: there is no such model or alias.
        ConflictError: there is no earlier version, or it was deleted.
    """
    places: list[int | None] = []  # without undone changes
    for event in load_events(connection, "name = ? AND alias = ?", [name, alias]):
        if event.verb == "rolled-back":
            del places[-1:]
        if event.verb != "rolled-back" or places[-1:] != [event.version]:  # undone in another log, where it was elsewhere
            places.append(event.version)
    if not places:
        find(connection, Reference(name, alias=alias))  # raises an error that lists the known names
    if len(places) < 2:
        raise _no_rollback(name, alias, "it has pointed to one version only")
    before = places[-2]
    query = "SELECT 1 FROM versions WHERE name = ? AND version = ?"
    if before is not None and connection.execute(query, [name, before]).fetchone() is None:
        raise _no_rollback(name, alias, f"the previous version, {name}@{before}, was deleted")
    return places[-1], before


def _no_rollback(name: str, alias: str, why: str) -> ConflictError:
    return ConflictError(f"{name}@{alias} cannot be rolled back: {why}. `tl registry promote` can point it to any version.")


def typo_notes(alias: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return a note if a new alias looks like a typo.

    Args:
        alias: alias name.
        known: aliases of the model.
    """
    near = get_close_matches(alias, {*known, *KNOWN_ALIASES}, n=1, cutoff=0.8)
    if not near or near[0] == alias:
        return ()
    return (f"The alias {alias!r} is new. If you meant {near[0]!r}, promote again and demote {alias!r}.",)


def tag(store: Store, ref: str, *, add: Iterable[str], remove: Iterable[str], actor: str) -> ModelVersion:
    """Add and remove tags of a version; nothing is logged if nothing changes. See ``Registry.tag``."""
    reference = Reference.parse(ref)
    wanted, unwanted = {checked_tag(word) for word in add}, {checked_tag(word) for word in remove}
    resolve(store, ref)  # a reference to nothing must not open a transaction
    with store.database.writing() as connection:
        current = find(connection, reference)
        name, version, present = current.name, current.version, set(current.tags)
        added, removed = sorted(wanted - unwanted - present), sorted(unwanted & present)
        connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", [(name, version, word) for word in added])
        query = "DELETE FROM tags WHERE name = ? AND version = ? AND tag = ?"
        connection.executemany(query, [(name, version, word) for word in removed])
        if added or removed:
            detail = {"added": added, "removed": removed}
            append(connection, Entry("tagged", actor, name, version, detail=detail), store.clock())
        tagged = find(connection, Reference(name, version))
    store.mirror.follow(store.database)
    return tagged
