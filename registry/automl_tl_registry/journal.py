"""The event log: append-only and hash-chained; replaying it yields the state of the registry. SQL and pure functions only.

The hash of an event covers its fields and the preceding hash, so a changed, removed or inserted event breaks the chain there.
Time never decreases in the log: if the clock goes back, the event takes the time of its predecessor and records the clock in
``detail.clock``.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from automl_tl_registry.values import Event, Tenure

GENESIS: Final = "0" * 64
COLUMNS: Final = "seq, at, actor, verb, name, version, alias, detail, previous, hash"


@dataclass(frozen=True)
class Entry:
    """An event before it is appended to the log."""

    verb: str
    actor: str
    name: str | None = None
    version: int | None = None
    alias: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


def canonical(value: object) -> str:
    """Return the canonical JSON of a value: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def stamp(moment: datetime) -> str:
    """Format a time as UTC with microseconds; the text sorts chronologically."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def hash_of(event: Event) -> str:
    """Return the sha256 over all fields of an event except ``hash``."""
    fields = event.model_dump(exclude={"hash", "at"}) | {"at": stamp(event.at)}
    return hashlib.sha256(canonical(fields).encode("ascii")).hexdigest()


def append(connection: sqlite3.Connection, entry: Entry, now: datetime) -> Event:
    """Append an event to the log, and return it with its number and hashes.

    Args:
        connection: open write transaction.
        entry: what happened.
        now: time by the clock; an earlier time than that of the last event is replaced by it.
    """
    rows = connection.execute(f"SELECT {COLUMNS} FROM events ORDER BY seq DESC LIMIT 1")
    event = following(next(map(_event, rows), None), entry, now)
    insert(connection, event)
    return event


def following(last: Event | None, entry: Entry, now: datetime) -> Event:
    """Return the event that continues a log.

    Args:
        last: the last event of the log; None if it is empty.
        entry: what happened.
        now: time by the clock; an earlier time than that of the last event is replaced by it.
    """
    seq, previous = (last.seq + 1, last.hash) if last else (1, GENESIS)
    earliest = last.at if last else now
    detail = entry.detail if now >= earliest else entry.detail | {"clock": stamp(now)}
    fields = vars(entry) | {"detail": detail, "seq": seq, "at": max(now, earliest), "previous": previous, "hash": ""}
    event = Event(**fields)
    return event.model_copy(update={"hash": hash_of(event)})


def insert(connection: sqlite3.Connection, event: Event) -> None:
    """Insert a complete event unchanged.

    Args:
        connection: open write transaction.
        event: the next event of an intact log.
    """
    fields = event.model_dump() | {"at": stamp(event.at), "detail": canonical(event.detail)}
    connection.execute(f"INSERT INTO events ({COLUMNS}) VALUES (:{', :'.join(COLUMNS.split(', '))})", fields)


def load_events(connection: sqlite3.Connection, where: str = "1", arguments: Iterable[object] = ()) -> Iterator[Event]:
    """Yield the matching events of the log, oldest first.

    Args:
        connection: open transaction.
        where: SQL condition.
        arguments: values of its placeholders.
    """
    for row in connection.execute(f"SELECT {COLUMNS} FROM events WHERE {where} ORDER BY seq", tuple(arguments)):
        yield _event(row)


def _event(row: sqlite3.Row) -> Event:
    return Event.model_validate(dict(row) | {"detail": json.loads(row["detail"])})


def identity(event: Event) -> str:
    """Return what an event keeps when it is copied into another log: its hash in the log where it happened."""
    return str(_source(event).get("hash", event.hash))


def happened_at(event: Event) -> datetime:
    """Return when an event happened, also if it was copied into this log later."""
    at = _source(event).get("at")
    return event.at if at is None else datetime.fromisoformat(str(at))


def copied(event: Event) -> Entry:
    """Return the entry that copies an event into another log, with its time and identity."""
    source = {"source": {"hash": identity(event), "at": stamp(happened_at(event))}}
    return Entry(event.verb, event.actor, event.name, event.version, event.alias, event.detail | source)


def _source(event: Event) -> dict[str, Any]:
    source = event.detail.get("source")
    return source if isinstance(source, dict) else {}


def broken_at(events: Iterable[Event]) -> tuple[int, str] | None:
    """Return number and reason of the first event that breaks the hash chain; None for an intact log."""
    expected_seq, previous = 1, GENESIS
    for event in events:
        if event.seq != expected_seq:
            return expected_seq, f"expected event {expected_seq}, found event {event.seq}"
        if event.previous != previous:
            return event.seq, f"event {event.seq} does not follow event {event.seq - 1}"
        if event.hash != hash_of(event):
            return event.seq, f"event {event.seq} was changed: expected hash {hash_of(event)}, found {event.hash}"
        expected_seq, previous = event.seq + 1, event.hash
    return None


@dataclass
class State:
    """State of the registry after a sequence of events."""

    versions: dict[tuple[str, int], str] = field(default_factory=dict)  # digest of the manifest
    aliases: dict[tuple[str, str], int] = field(default_factory=dict)
    tags: set[tuple[str, int, str]] = field(default_factory=set)
    last_version: dict[str, int] = field(default_factory=dict)


def replay(events: Iterable[Event]) -> State:
    """Return the state of the registry after all its events."""
    state = State()
    for event in events:
        match event:
            case Event(verb="published" | "imported" | "recovered", name=str(name), version=int(version)):
                state.versions[name, version] = str(event.detail["manifest"])
                state.last_version[name] = max(version, state.last_version.get(name, 0))
            case Event(verb="deleted", name=str(name), version=int(version)):
                state.versions.pop((name, version), None)
                state.tags = {tag for tag in state.tags if tag[:2] != (name, version)}
            case Event(verb="promoted" | "rolled-back", name=str(name), version=int(version), alias=str(alias)):
                state.aliases[name, alias] = version
            case Event(verb="demoted" | "rolled-back", name=str(name), alias=str(alias)):  # also a rollback to unset
                state.aliases.pop((name, alias), None)
            case Event(verb="tagged", name=str(name), version=int(version)) if (name, version) in state.versions:
                state.tags |= {(name, version, tag) for tag in _texts(event.detail.get("added"))}
                state.tags -= {(name, version, tag) for tag in _texts(event.detail.get("removed"))}
    return state


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def tenures(events: Iterable[Event]) -> list[Tenure]:
    """Return which alias pointed to which version, from when to when, ordered by start."""
    history: list[Tenure] = []
    running: dict[tuple[str, str], int] = {}
    for event in events:
        if event.name is None or event.alias is None:
            continue
        before = running.pop((event.name, event.alias), None)
        if before is not None:
            history[before] = history[before].model_copy(update={"until": happened_at(event)})
        if event.version is not None and event.verb != "demoted":
            running[event.name, event.alias] = len(history)
            history.append(_begun(event, event.name, event.alias, event.version))
    return history


def _begun(event: Event, name: str, alias: str, version: int) -> Tenure:
    reason = event.detail.get("reason")
    return Tenure(
        name=name,
        alias=alias,
        version=version,
        since=happened_at(event),
        actor=event.actor,
        reason=reason if isinstance(reason, str) else None,
        forced=event.detail.get("forced") is True,
        verb=event.verb,
    )
