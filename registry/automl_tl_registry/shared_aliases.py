"""Move the aliases of a shared registry: compare-and-swap on its log, after the gates have read the pulled files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from automl_tl_registry import aliases, queries
from automl_tl_registry.aliases import Move
from automl_tl_registry.errors import AliasMovedError, ConflictError, GateFailedError, IntegrityError
from automl_tl_registry.gates import GATES_FILE, GatePolicy, read_policy
from automl_tl_registry.journal import Entry, replay
from automl_tl_registry.pull import pull
from automl_tl_registry.remote_store import read_object
from automl_tl_registry.shared_log import append_entry
from automl_tl_registry.shared_models import SharedModels, mover
from automl_tl_registry.values import ANYWHERE, AliasChange, Event, GateResult, ModelVersion, Reference, checked_name


def promote(models: SharedModels, ref: str, move: Move, gates: GatePolicy | None) -> AliasChange:
    """Point an alias to a version if its gates pass. See ``SharedRegistry.promote``."""
    alias, reference = move.alias, Reference.parse(ref)
    name = reference.name
    theirs = models.existing_log(name)
    version = models.find(theirs, reference)
    known = {key[1]: number for key, number in replay(theirs).aliases.items()}
    live = known.get(alias)
    _check_expected(models, name, move, live, theirs)
    if live == version.version:
        return AliasChange(name=name, alias=alias, version=live, previous=live, changed=False)
    models.check_exclusive()
    results, notes = _judge(models, version, move, live, gates)
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
    _carry_out(models, "promoted", change, move, theirs)
    return change


def undo(models: SharedModels, verb: str, name: str, move: Move) -> AliasChange:
    """Roll back or remove an alias, and return the change.

    Args:
        models: the shared registry.
        verb: rolled-back or demoted.
        name: model name.
        move: which alias, by whom and why.
    """
    theirs = models.existing_log(checked_name(name))
    with models.copy({name: theirs}) as connection:
        if verb == "rolled-back":
            live, before = aliases.last_two(connection, name, move.alias)
        else:
            live, before = queries.find(connection, Reference(name, alias=move.alias)).version, None
    _check_expected(models, name, move, live, theirs)
    models.check_exclusive()
    change = AliasChange(name=name, alias=move.alias, version=before, previous=live)
    _carry_out(models, verb, change, move, theirs)
    return change


def _judge(
    models: SharedModels, version: ModelVersion, move: Move, live: int | None, policy: GatePolicy | None
) -> tuple[list[GateResult], tuple[str, ...]]:
    """Pull both versions and run the gates on them, by the rules of the shared registry if it has any."""
    notes = []
    pull(models, version.ref, actor=move.actor, public_key=None)
    if live is not None:
        try:
            pull(models, f"{version.name}@{live}", actor=move.actor, public_key=None)
        except IntegrityError as error:
            notes.append(f"The live version is damaged, so the comparison uses its recorded accuracy: {error}")
    with TemporaryDirectory() as folder:
        root = models.store.root
        if models.remote.stored(GATES_FILE) is not None:
            root = Path(folder)
            (root / GATES_FILE).write_bytes(read_object(models.remote, GATES_FILE))
        policy = policy or read_policy(root, version.name)
    return aliases.gate_results(models.store, version, move, live, policy), tuple(notes)


def _check_expected(models: SharedModels, name: str, move: Move, live: int | None, theirs: Sequence[Event]) -> None:
    if move.expect is not ANYWHERE and move.expect != live:
        raise AliasMovedError(
            name, move.alias, expected=move.expect, found=live, by=mover(theirs, move.alias), remote=models.remote.url
        )


def _carry_out(models: SharedModels, verb: str, change: AliasChange, move: Move, theirs: list[Event]) -> None:
    """Append the move to the log if the alias still points to ``change.previous``."""
    entry = aliases.entry_of(verb, change, move)

    def decide(events: list[Event]) -> Entry:
        if any(event.alias == change.alias for event in events[len(theirs) :]):
            found = replay(events).aliases.get((change.name, change.alias))
            by = mover(events, change.alias)
            raise AliasMovedError(
                change.name, change.alias, expected=change.previous, found=found, by=by, remote=models.remote.url
            )
        if change.version is not None and (change.name, change.version) not in replay(events).versions:
            raise ConflictError(f"{change.name}@{change.version} was deleted in {models.remote.url} in the meantime.")
        return entry

    append_entry(models.remote, change.name, theirs, decide, models.store.clock())
