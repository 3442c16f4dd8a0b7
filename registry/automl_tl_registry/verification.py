"""``verify``: check the whole registry. Reads every byte, changes nothing, reports each problem.

Checks the consistency of the database, the hash chain of the log, its mirror, whether versions, aliases and tags match the
log, the digest of each manifest and blob, and on request the reference predictions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from automl_tl_registry.errors import IntegrityError, RegistryError
from automl_tl_registry.index import Filter, find, list_versions
from automl_tl_registry.journal import State, broken_at, load_events, replay
from automl_tl_registry.names import Reference
from automl_tl_registry.queries import check_manifest, view_of
from automl_tl_registry.store import Store
from automl_tl_registry.tensors import read_header
from automl_tl_registry.values import Event, ModelVersion, Value

__all__ = ["Kind", "Problem", "Verification", "verify"]

Kind = Literal["database", "log", "mirror", "state", "manifest", "blob", "unknown_file", "probe", "clock"]


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
    num_probed: int = 0
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


def verify(store: Store, ref: str | None = None, *, probe: bool = False) -> Verification:
    """Verify the registry, or one version and the log. See ``Registry.verify``."""
    try:
        store.check_not_orphaned()
        state = store.database.read(lambda connection: _read_state(connection, ref))
    except IntegrityError as error:
        state = _RegistryState(problems=[Problem(kind="database", subject=store.database.path.name, text=str(error))])
    problems = [*state.problems, *_log_problems(store, state)] if state.events else state.problems
    sizes = _blob_sizes(store, state, whole=ref is None)
    damaged = {digest: text for digest in sizes if (text := _damage(store, digest))}
    for version in state.versions:
        problems += list(_version_problems(store, version, damaged))
    if ref is None:
        problems += list(_others(store, damaged, {problem.subject for problem in problems}))
    num_probed, disagreements = _probed(store, state.versions) if probe else (0, [])
    return Verification(
        num_versions=len(state.versions),
        num_blobs=len(sizes),
        num_bytes=sum(sizes.values()),
        num_events=len(state.events),
        num_probed=num_probed,
        problems=tuple(problems + disagreements),
    )


def _read_state(connection: sqlite3.Connection, ref: str | None) -> _RegistryState:
    state = _RegistryState()
    for row in [*connection.execute("PRAGMA integrity_check(10)"), *connection.execute("PRAGMA foreign_key_check")]:
        if row[0] != "ok":
            state.problems.append(Problem(kind="database", subject="registry.sqlite", text=" ".join(map(str, row))))
    state.versions = list_versions(connection, Filter()) if ref is None else [find(connection, Reference.parse(ref))]
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
                yield Problem(kind="state", subject=_named(key), text=text)
    for tag in sorted(expected.tags ^ found.tags):
        yield Problem(kind="state", subject=f"{tag[0]}@{tag[1]}", text=f"the log and the table of tags disagree on {tag[2]!r}")


def _named(key: object) -> str:
    return "@".join(map(str, key)) if isinstance(key, tuple) else str(key)


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


def _blob_sizes(store: Store, state: _RegistryState, *, whole: bool) -> dict[str, int]:
    """Return sizes by digest of the blobs that versions need and, if ``whole``, of all others."""
    sizes = {blob.digest: blob.size_bytes for version in state.versions for blob in version.blobs.values()}
    sizes |= {version.manifest_digest: 0 for version in state.versions}
    return sizes | (dict(store.blobs.all()) if whole else {})


def _damage(store: Store, digest: str) -> str | None:
    try:
        path = store.blobs.checked(digest)
        read_header(path)
    except RegistryError as error:
        return str(error)
    return None


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
            yield Problem(
                kind="blob",
                subject=f"unused {digest}",
                text=f"{text} No version needs it; `tl registry gc` removes it.",
                severity="warning",
            )
    for path in store.blobs.unknown_files():
        text = "its name is not a digest; the registry did not create it and ignores it"
        yield Problem(kind="unknown_file", subject=str(path.relative_to(store.root)), text=text, severity="warning")


def _probed(store: Store, versions: list[ModelVersion]) -> tuple[int, list[Problem]]:
    """Return the number of versions whose reference predictions were computed, and the disagreements."""
    if store.probe is None:
        text = "reference predictions cannot be computed: open the registry with a probe"
        return 0, [Problem(kind="probe", subject="probe", text=text, severity="warning")]
    problems = []
    for version in versions:
        try:
            store.probe(view_of(store, version))
        except IntegrityError:
            continue  # reported already
        except Exception as error:  # any error of the check is a disagreement and is quoted
            problems.append(Problem(kind="probe", subject=version.ref, text=f"{type(error).__name__}: {error}"))
    return len(versions), problems
