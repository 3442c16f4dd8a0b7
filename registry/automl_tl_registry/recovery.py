"""Check a registry (``verify``) and restore its database from the other files (``rebuild``).

``verify`` reads every byte, changes nothing and reports each problem.

``rebuild`` takes versions and facts from the manifest blobs; order, aliases, tags, deletions and history from the longest
intact log: the database's if readable, or ``events.jsonl``, each up to its first damaged event. An intact manifest that the log
does not mention becomes a version (event ``recovered``): a publication that died during its commit may thus appear, which is
better than losing one. A database that can be opened is refilled in one transaction; otherwise it is kept as
``registry.sqlite.damaged-...``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Final, Literal

from automl_tl_registry.contents import is_manifest, read_header, read_manifest
from automl_tl_registry.errors import DamagedDatabaseError, IntegrityError, RegistryError
from automl_tl_registry.journal import Entry, State, append, broken_at, insert, load_events, replay, stamp
from automl_tl_registry.queries import add_version, check_manifest, find, list_versions, set_alias, view_of
from automl_tl_registry.signing import check, check_alias
from automl_tl_registry.store import APPEND_ONLY, Store
from automl_tl_registry.values import Event, Manifest, ModelVersion, Reference, Value

Kind = Literal[
    "database", "log", "mirror", "state", "manifest", "blob", "unknown_file", "reference_predictions", "clock", "signature"
]


class Problem(Value):
    """A problem; a ``warning`` does no harm."""

    kind: Kind
    subject: str
    text: str
    severity: Literal["error", "warning"] = "error"


class Verification(Value):
    """Result of ``verify``: what was checked, and the problems."""

    num_versions: int
    num_blobs: int
    num_bytes: int
    num_events: int
    num_predicted: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether there are no errors; warnings do not count."""
        return all(problem.severity == "warning" for problem in self.problems)


@dataclass
class _RegistryState:
    """One consistent state of the database."""

    versions: list[ModelVersion] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    state: State = field(default_factory=State)
    problems: list[Problem] = field(default_factory=list)


def verify(store: Store, ref: str | None = None, *, predictions: bool = False, public_key: Path | None = None) -> Verification:
    """Verify the registry, or one version and the log. See ``Registry.verify``."""
    try:
        store.check_not_orphaned()
        state = store.database.read(lambda connection: _read_state(connection, ref))
    except IntegrityError as error:
        state = _RegistryState(problems=[Problem(kind="database", subject=store.database.path.name, text=str(error))])
    problems = [*state.problems, *_log_problems(store, state)] if state.events else state.problems
    # The blobs that versions need and, without a reference, all others.
    sizes = {blob.digest: blob.size_bytes for version in state.versions for blob in version.blobs.values()}
    sizes |= {version.manifest_digest: 0 for version in state.versions}
    sizes |= dict(store.blobs.all()) if ref is None else {}
    damaged = {}
    for digest in sizes:
        try:
            read_header(store.blobs.checked(digest))
        except RegistryError as error:
            damaged[digest] = str(error)
    for version in state.versions:
        problems += list(_version_problems(store, version, damaged))
    if ref is None:
        problems += list(_others(store, damaged, {problem.subject for problem in problems}))
    if public_key is not None:
        problems += list(_signature_problems(store, state, public_key))
    num_predicted, disagreements = _reproduce_predictions(store, state.versions) if predictions else (0, [])
    return Verification(
        num_versions=len(state.versions),
        num_blobs=len(sizes),
        num_bytes=sum(sizes.values()),
        num_events=len(state.events),
        num_predicted=num_predicted,
        problems=tuple(problems + disagreements),
    )


def _read_state(connection: sqlite3.Connection, ref: str | None) -> _RegistryState:
    state = _RegistryState()
    for row in [*connection.execute("PRAGMA integrity_check(10)"), *connection.execute("PRAGMA foreign_key_check")]:
        if row[0] != "ok":
            state.problems.append(Problem(kind="database", subject="registry.sqlite", text=" ".join(map(str, row))))
    state.versions = list_versions(connection) if ref is None else [find(connection, Reference.parse(ref))]
    state.events = list(load_events(connection))
    keys = connection.execute("SELECT name, version, manifest_digest FROM versions")
    state.state.versions = {(row[0], row[1]): row[2] for row in keys}
    state.state.aliases = {(row[0], row[1]): row[2] for row in connection.execute("SELECT name, alias, version FROM aliases")}
    state.state.tags = {(row[0], row[1], row[2]) for row in connection.execute("SELECT name, version, tag FROM tags")}
    state.state.last_version = {row[0]: row[1] for row in connection.execute("SELECT name, last_version FROM models")}
    return state


def _log_problems(store: Store, state: _RegistryState) -> Iterator[Problem]:
    broken = broken_at(state.events)
    if broken is not None:
        yield Problem(kind="log", subject=f"event {broken[0]}", text=f"{broken[1]}; the log was modified externally")
    else:
        yield from _state_problems(replay(state.events), state.state)
    yield from _mirror_problems(list(store.mirror.events()), state.events)
    last, now = state.events[-1].at, store.clock()
    if last > now:
        text = f"the last event is dated {last:%Y-%m-%d %H:%M}, the clock shows {now:%Y-%m-%d %H:%M}: one of them is wrong"
        yield Problem(kind="clock", subject="clock", text=text, severity="warning")


def _state_problems(expected: State, found: State) -> Iterator[Problem]:
    for what in ("versions", "aliases", "last_version"):
        old, new = getattr(expected, what), getattr(found, what)
        for key in sorted({*old, *new}, key=str):
            if old.get(key) != new.get(key):
                text = f"expected {old.get(key, 'nothing')} from the log, found {new.get(key, 'nothing')} in table {what}"
                subject = "@".join(map(str, key)) if isinstance(key, tuple) else key
                yield Problem(kind="state", subject=subject, text=text)
    for tag in sorted(expected.tags ^ found.tags):
        yield Problem(kind="state", subject=f"{tag[0]}@{tag[1]}", text=f"the log and the table of tags disagree on {tag[2]!r}")


def _mirror_problems(mirrored: list[Event], events: list[Event]) -> Iterator[Problem]:
    for ours, theirs in zip(events, mirrored, strict=False):
        if ours != theirs:
            text = "the database and events.jsonl differ; one of them was modified externally"
            yield Problem(kind="mirror", subject=f"event {ours.seq}", text=text)
            return
    if len(mirrored) > len(events):
        text = f"events.jsonl has {len(mirrored)} events, the database has {len(events)}: the end of the log was removed"
        yield Problem(kind="mirror", subject="events.jsonl", text=text)
    elif len(mirrored) < len(events):
        text = f"{len(events) - len(mirrored)} events are missing; the next change adds them, unless a line is damaged"
        yield Problem(kind="mirror", subject="events.jsonl", text=text, severity="warning")


def _version_problems(store: Store, version: ModelVersion, damaged: dict[str, str]) -> Iterator[Problem]:
    broken = {role: blob.digest for role, blob in version.blobs.items() if blob.digest in damaged}
    broken |= {"manifest": version.manifest_digest} if version.manifest_digest in damaged else {}
    if broken and not _is_still_there(store, version):
        return  # deleted and collected in the meantime
    for role, digest in broken.items():
        kind: Kind = "manifest" if role == "manifest" else "blob"
        yield Problem(kind=kind, subject=f"{version.ref} {role} {digest}", text=damaged[digest])
    if "manifest" not in broken:
        try:
            check_manifest(store, version)
        except IntegrityError as error:
            yield Problem(kind="manifest", subject=f"{version.ref} manifest {version.manifest_digest}", text=str(error))


def _is_still_there(store: Store, version: ModelVersion) -> bool:
    try:
        return store.database.read(lambda connection: find(connection, Reference(version.name, version.version))) is not None
    except RegistryError:
        return False


def _others(store: Store, damaged: dict[str, str], named: set[str]) -> Iterator[Problem]:
    for digest, text in damaged.items():
        if not any(digest in subject for subject in named) and store.blobs.path(digest).exists():
            advice = "No version needs it; `tl registry gc` removes it."
            yield Problem(kind="blob", subject=f"unused {digest}", text=f"{text} {advice}", severity="warning")
    for path in store.blobs.unknown_files():
        text = "its name is not a digest; the registry did not create it and ignores it"
        yield Problem(kind="unknown_file", subject=str(path.relative_to(store.root)), text=text, severity="warning")


def _signature_problems(store: Store, state: _RegistryState, public_key: Path) -> Iterator[Problem]:
    moves = {(event.name, event.alias): event for event in state.events if event.alias is not None}  # the last ones
    for version in state.versions:
        try:
            check(store, version, public_key)
        except IntegrityError as error:
            yield Problem(kind="signature", subject=version.ref, text=str(error))
        for alias in version.aliases:
            yield from alias_problems(f"{version.name}@{alias}", moves.get((version.name, alias)), public_key)


def alias_problems(subject: str, move: Event | None, public_key: Path) -> Iterator[Problem]:
    """Yield what is wrong with the signature of an alias.

    Args:
        subject: the alias, as ``name@alias``.
        move: its last move.
        public_key: PEM file.
    """
    if move is None or "signature" not in move.detail:
        text = "the alias is not signed; `tl registry promote --key FILE` signs a move"
        yield Problem(kind="signature", subject=subject, text=text, severity="warning")
        return
    try:
        check_alias(move, public_key)
    except IntegrityError as error:
        yield Problem(kind="signature", subject=subject, text=str(error))


def _reproduce_predictions(store: Store, versions: list[ModelVersion]) -> tuple[int, list[Problem]]:
    """Return the number of versions whose reference predictions were computed, and the disagreements."""
    if store.check_predictions is None:
        text = "reference predictions cannot be computed: open the registry with `check_predictions`"
        return 0, [Problem(kind="reference_predictions", subject="registry", text=text, severity="warning")]
    problems = []
    for version in versions:
        try:
            store.check_predictions(view_of(store, version))
        except IntegrityError:
            continue  # reported already
        except Exception as error:  # any error of the check is a disagreement and is quoted
            problems.append(Problem(kind="reference_predictions", subject=version.ref, text=f"{type(error).__name__}: {error}"))
    return len(versions), problems


TABLES: Final = ("tags", "aliases", "version_blobs", "versions", "manifests", "models", "events")


class Rebuilt(Value):
    """Result of ``rebuild``: what was restored, and what could not be."""

    num_versions: int
    num_aliases: int
    num_events: int
    recovered: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass
class _Sources:
    """Sources to rebuild from."""

    manifests: dict[str, Manifest] = field(default_factory=dict)  # by digest
    events: list[Event] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def rebuild(store: Store, *, actor: str) -> Rebuilt:
    """Rebuild the database; safe to repeat. See ``Registry.rebuild``."""
    if not store.root.is_dir():
        raise DamagedDatabaseError(store.database.path, f"there is no folder {store.root} to rebuild from")
    sources = _Sources()
    for digest, _ in store.blobs.all():
        path = store.blobs.path(digest)
        if is_manifest(path):
            try:
                store.blobs.checked(digest)
                sources.manifests[digest] = read_manifest(path)
            except IntegrityError as error:
                sources.problems.append(str(error))
    mirrored = _intact(list(store.mirror.events()), "events.jsonl", sources)
    if not _is_usable(store):
        database = store.database.path
        _set_aside(store, database.with_name(f"{database.name}-journal"))  # first, so that the new database does not apply it
        _set_aside(store, database)
        store.database.ensure()
    with store.database.writing() as connection:
        logged = _intact(list(load_events(connection)), "the database", sources)
        sources.events = max(logged, mirrored, key=len)
        _clear(connection)
        rebuilt = _fill(store, connection, sources, actor)
    # A mirror that differs from the log is kept beside the new one.
    if store.mirror.path.exists() and list(store.mirror.events()) != sources.events[: store.mirror.num_lines()]:
        _set_aside(store, store.mirror.path)
    store.mirror.follow(store.database)
    return rebuilt


def _intact(events: list[Event], where: str, sources: _Sources) -> list[Event]:
    """Return the events up to the first that breaks the hash chain."""
    broken = broken_at(events)
    if broken is None:
        return events
    sources.problems.append(f"{where}: {broken[1]}; events from {broken[0]} on were ignored")
    return list(takewhile(lambda event: event.seq < broken[0], events))


def _is_usable(store: Store) -> bool:
    if not store.database.path.exists():
        return False
    try:
        with store.database.writing() as connection:
            return bool(connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok")
    except (IntegrityError, sqlite3.DatabaseError, OSError):
        return False


def _set_aside(store: Store, path: Path) -> None:
    """Rename a damaged file, if it exists, to an unused name beside it."""
    if not path.exists():
        return
    damaged = path.with_name(f"{path.name}.damaged-{stamp(store.clock())[:19].replace(':', '')}")
    number, target = 1, damaged
    while target.exists():
        number, target = number + 1, damaged.with_name(f"{damaged.name}-{number}")
    store.disk.rename(path, target)


def _clear(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TRIGGER events_never_change")
    connection.execute("DROP TRIGGER events_never_leave")
    for table in TABLES:
        connection.execute(f"DELETE FROM {table}")
    for statement in APPEND_ONLY:
        connection.execute(statement)


def _fill(store: Store, connection: sqlite3.Connection, sources: _Sources, actor: str) -> Rebuilt:
    """Write the log, append losses and recoveries, and fill the tables from its replay."""
    for event in sources.events:
        insert(connection, event)
    _write_off(store, connection, sources, actor)
    recovered = _recover(store, connection, sources, actor)
    detail = {"recovered": recovered, "num_problems": len(sources.problems)}
    last = append(connection, Entry("rebuilt", actor, detail=detail), store.clock())
    events = list(load_events(connection))
    state, places = replay(events), {}
    for event in events:
        if "manifest" in event.detail and event.verb != "deleted":
            places[event.name, event.version] = event.seq
    for key, digest in sorted(state.versions.items(), key=lambda item: places[item[0]]):
        add_version(connection, sources.manifests[digest], digest, places[key])
    for (name, alias), version in state.aliases.items():
        set_alias(connection, name, alias, version)
    connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", sorted(state.tags))
    connection.executemany("INSERT OR REPLACE INTO models VALUES (?, ?)", sorted(state.last_version.items()))
    return Rebuilt(
        num_versions=len(state.versions),
        num_aliases=len(state.aliases),
        num_events=last.seq,
        recovered=tuple(recovered),
        problems=tuple(sources.problems),
    )


def _write_off(store: Store, connection: sqlite3.Connection, sources: _Sources, actor: str) -> None:
    """Record the deletion of versions without a manifest, and of their aliases; the log keeps them."""
    state = replay(sources.events)
    key_of = {digest: (manifest.name, manifest.version) for digest, manifest in sources.manifests.items()}
    lost = {key: digest for key, digest in state.versions.items() if key_of.get(digest) != key}
    detail = {"reason": "its manifest was lost"}
    for (name, alias), version in state.aliases.items():
        if (name, version) in lost:
            append(connection, Entry("demoted", actor, name, None, alias, detail | {"from": version}), store.clock())
    for (name, version), digest in lost.items():
        sources.problems.append(f"{name}@{version} is lost: its manifest {digest} is missing")
        append(connection, Entry("deleted", actor, name, version, detail=detail | {"manifest": digest}), store.clock())


def _recover(store: Store, connection: sqlite3.Connection, sources: _Sources, actor: str) -> list[str]:
    """Restore versions that no event mentions although all of their files exist."""
    mentioned = {event.detail.get("manifest") for event in sources.events}
    taken = {(event.name, event.version) for event in sources.events}
    recovered = []
    unmentioned = {digest: manifest for digest, manifest in sources.manifests.items() if digest not in mentioned}
    for digest, manifest in sorted(unmentioned.items(), key=lambda item: item[1].created_at, reverse=True):
        ref, key = f"{manifest.name}@{manifest.version}", (manifest.name, manifest.version)
        if key in taken:
            sources.problems.append(f"{ref}: manifest {digest} reuses a version number; `tl registry gc` removes it")
        elif not all(store.blobs.path(blob.digest).exists() for blob in manifest.blobs.values()):
            sources.problems.append(f"{ref}: files of manifest {digest} are missing; it was skipped")
        else:
            taken.add(key)
            recovered.append((key, digest))
    for (name, version), digest in reversed(recovered):  # the oldest first
        append(connection, Entry("recovered", actor, name, version, detail={"manifest": digest}), store.clock())
    return [f"{name}@{version}" for (name, version), _ in reversed(recovered)]
