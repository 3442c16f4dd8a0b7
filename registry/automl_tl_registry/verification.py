"""``verify``: does everything still fit together? Reads every byte, changes nothing, names each problem.

The database's own consistency; the log's hash chain; its mirror; that versions, aliases and tags are what the log adds up to;
each manifest and blob by digest; and, if asked and a probe is at hand, what the models predict.
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
    """Something that isn't as it should be; a ``warning`` harms nothing."""

    kind: Kind
    subject: str
    text: str
    severity: Literal["error", "warning"] = "error"


class Verification(Value):
    """What was looked at and what was found."""

    num_versions: int
    num_blobs: int
    num_bytes: int
    num_events: int
    num_probed: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether there are no errors; warnings don't count."""
        return all(problem.severity == "warning" for problem in self.problems)


@dataclass
class _Reading:
    """One consistent look at the database."""

    versions: list[ModelVersion] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    state: State = field(default_factory=State)
    problems: list[Problem] = field(default_factory=list)


def verify(store: Store, ref: str | None = None, *, probe: bool = False) -> Verification:
    """Everything, or the files of one version and the log.

    Raises:
        NotFoundError: ``ref`` isn't there.
        NewerSchemaError: the registry can't be judged by this release.
    """
    try:
        store.check_not_orphaned()
        seen = store.database.read(lambda connection: _look(connection, ref))
    except IntegrityError as error:
        seen = _Reading(problems=[Problem(kind="database", subject=store.database.path.name, text=str(error))])
    problems = [*seen.problems, *_log_problems(store, seen)] if seen.events else seen.problems
    sizes = _blob_sizes(store, seen, whole=ref is None)
    damaged = {digest: text for digest in sizes if (text := _damage(store, digest))}
    for version in seen.versions:
        problems += list(_version_problems(store, version, damaged))
    if ref is None:
        problems += list(_others(store, damaged, {problem.subject for problem in problems}))
    num_probed, disagreements = _probed(store, seen.versions) if probe else (0, [])
    return Verification(
        num_versions=len(seen.versions),
        num_blobs=len(sizes),
        num_bytes=sum(sizes.values()),
        num_events=len(seen.events),
        num_probed=num_probed,
        problems=tuple(problems + disagreements),
    )


def _look(connection: sqlite3.Connection, ref: str | None) -> _Reading:
    seen = _Reading()
    for row in [*connection.execute("PRAGMA integrity_check(10)"), *connection.execute("PRAGMA foreign_key_check")]:
        if row[0] != "ok":
            seen.problems.append(Problem(kind="database", subject="registry.sqlite", text=" ".join(map(str, row))))
    seen.versions = list_versions(connection, Filter()) if ref is None else [find(connection, Reference.parse(ref))]
    seen.events = list(load_events(connection))
    keys = connection.execute("SELECT name, version, manifest_digest FROM versions")
    seen.state.versions = {(row[0], row[1]): row[2] for row in keys}
    seen.state.aliases = {(row[0], row[1]): row[2] for row in connection.execute("SELECT name, alias, version FROM aliases")}
    seen.state.tags = {(row[0], row[1], row[2]) for row in connection.execute("SELECT name, version, tag FROM tags")}
    seen.state.last_version = {row[0]: row[1] for row in connection.execute("SELECT name, last_version FROM models")}
    return seen


def _log_problems(store: Store, seen: _Reading) -> Iterator[Problem]:
    broken = broken_at(seen.events)
    if broken is not None:
        yield Problem(kind="log", subject=f"event {broken[0]}", text=f"{broken[1]}; the log was changed from outside")
    else:
        yield from _state_problems(replay(seen.events), seen.state)
    yield from _mirror_problems(list(store.mirror.events()), seen.events)
    last, now = seen.events[-1].at, store.clock()
    if last > now:
        text = f"the last event is of {last:%Y-%m-%d %H:%M}, the clock shows {now:%Y-%m-%d %H:%M}: one of them is or was wrong"
        yield Problem(kind="clock", subject="clock", text=text, severity="warning")


def _state_problems(expected: State, found: State) -> Iterator[Problem]:
    for what in ("versions", "aliases", "last_version"):
        old, new = getattr(expected, what), getattr(found, what)
        for key in sorted({*old, *new}, key=str):
            if old.get(key) != new.get(key):
                text = f"the log says {old.get(key, 'nothing')}, the table {what} says {new.get(key, 'nothing')}"
                yield Problem(kind="state", subject=_named(key), text=text)
    for tag in sorted(expected.tags ^ found.tags):
        yield Problem(
            kind="state", subject=f"{tag[0]}@{tag[1]}", text=f"the log and the table of tags disagree about {tag[2]!r}"
        )


def _named(key: object) -> str:
    return "@".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _mirror_problems(mirrored: list[Event], events: list[Event]) -> Iterator[Problem]:
    for ours, theirs in zip(events, mirrored, strict=False):
        if ours != theirs:
            text = "the database and events.jsonl tell different things; one of them was changed from outside"
            yield Problem(kind="mirror", subject=f"event {ours.seq}", text=text)
            return
    if len(mirrored) > len(events):
        text = f"events.jsonl has {len(mirrored)} events, the database {len(events)}: the end of the log was removed"
        yield Problem(kind="mirror", subject="events.jsonl", text=text)
    elif len(mirrored) < len(events):
        text = f"lacks {len(events) - len(mirrored)} events; the next change completes it, unless a line in it is damaged"
        yield Problem(kind="mirror", subject="events.jsonl", text=text, severity="warning")


def _blob_sizes(store: Store, seen: _Reading, *, whole: bool) -> dict[str, int]:
    """Size by digest, of what the versions need and (``whole``) of what else is there."""
    sizes = {blob.digest: blob.size_bytes for version in seen.versions for blob in version.blobs.values()}
    sizes |= {version.manifest_digest: 0 for version in seen.versions}
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
        return  # deleted and collected while we were reading
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
                kind="blob", subject=f"unused {digest}", text=f"{text} No version needs it; gc removes it.", severity="warning"
            )
    for path in store.blobs.unknown_files():
        text = "isn't named by a digest; the registry didn't put it there and ignores it"
        yield Problem(kind="unknown_file", subject=str(path.relative_to(store.root)), text=text, severity="warning")


def _probed(store: Store, versions: list[ModelVersion]) -> tuple[int, list[Problem]]:
    """How many versions were predicted again, and which disagree."""
    if store.probe is None:
        text = "reference predictions cannot be computed: open the registry with a probe"
        return 0, [Problem(kind="probe", subject="probe", text=text, severity="warning")]
    problems = []
    for version in versions:
        try:
            store.probe(view_of(store, version))
        except IntegrityError:
            continue  # reported already
        except Exception as error:  # whatever a probe raises is a disagreement; it is quoted
            problems.append(Problem(kind="probe", subject=version.ref, text=f"{type(error).__name__}: {error}"))
    return len(versions), problems
