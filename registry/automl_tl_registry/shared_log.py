"""The log of one model in a shared registry: ``models/NAME/log/00000001.json``, ``00000002.json`` and so on.

The log is all shared state: a version exists once an entry publishes it, and an alias points where the last entry puts it. An
entry is an event of ``journal``, hash-chained as in a local registry, and an object that is created only if there is none. So
moving an alias is compare-and-swap: of two processes that read the same log, one creates the next entry; the other reads it.

**Merging.** An event keeps its identity when it is copied into another log: ``detail.source`` has the hash and time it has
where it happened. Copying appends the events that are missing, in their order. What has been superseded meanwhile, or concerns
a version that was deleted here, is copied with the verb ``superseded``: it is on record, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from automl_tl_registry.contents import problems_in
from automl_tl_registry.errors import DamagedManifestError, DamagedObjectError, MissingObjectError, RemoteError
from automl_tl_registry.exchange import check_printable
from automl_tl_registry.journal import Entry, broken_at, copied, following, happened_at, identity, replay
from automl_tl_registry.remote_store import RemoteStore, read_object
from automl_tl_registry.values import Event, is_digest, is_name

CREATIONS: Final = ("published", "imported", "recovered")
ALIAS_VERBS: Final = ("promoted", "rolled-back", "demoted")
VERBS: Final = (*CREATIONS, *ALIAS_VERBS, "deleted", "tagged", "signed", "superseded")
MAX_TRIES: Final = 1_000
READERS: Final = 8  # concurrent requests


def log_key(name: str, seq: int) -> str:
    """Return the key of an entry.

    Args:
        name: model name.
        seq: its number, from 1.
    """
    return f"models/{name}/log/{seq:08}.json"


def model_names(remote: RemoteStore) -> list[str]:
    """Return the names of the models in a shared registry."""
    names = {key.split("/")[1] for key in remote.list("models/") if key.count("/") == 3}
    return sorted(name for name in names if is_name(name))


def read_log(remote: RemoteStore, name: str, known: Sequence[Event] = ()) -> list[Event]:
    """Return the log of a model after checking its hash chain; empty if there is none.

    Args:
        remote: the shared registry.
        name: model name.
        known: the log as it was read before; only later entries are read.

    Raises:
        DamagedObjectError: an entry is missing, malformed or was changed.
    """
    last = max((int(key[-13:-5]) for key in remote.list(f"models/{name}/log/") if key[-13:-5].isdecimal()), default=0)
    with ThreadPoolExecutor(READERS) as pool:
        added = pool.map(lambda seq: _read_entry(remote, name, seq), range(len(known) + 1, last + 1))
        events = [*known, *added]
    broken = broken_at(events)
    if broken is not None:
        raise _damaged(remote, name, broken[0], broken[1])
    return events


def _read_entry(remote: RemoteStore, name: str, seq: int) -> Event:
    url = f"{remote.url}/{log_key(name, seq)}"
    try:
        event = Event.model_validate_json(read_object(remote, log_key(name, seq)))
        check_printable(event.model_dump(mode="json"), url)
        happened_at(event)
    except MissingObjectError as error:
        raise _damaged(remote, name, seq, "it is missing although later entries exist") from error
    except ValidationError as error:
        why = f"it is not an entry of a log, or a newer version of automl_tl wrote it ({problems_in(error)})"
        raise _damaged(remote, name, seq, why) from error
    except (ValueError, DamagedManifestError) as error:
        raise _damaged(remote, name, seq, f"it is not an entry of a log ({str(error)[:200]})") from error
    if event.name != name:
        raise _damaged(remote, name, seq, f"it is about {str(event.name)[:64]!a}, not {name}")
    if event.verb not in VERBS:
        text = (
            f"this version of automl_tl does not know its verb {event.verb[:64]!a}; upgrade automl_tl if a newer one wrote it"
        )
        raise _damaged(remote, name, seq, text)
    if event.verb in (*CREATIONS, "deleted") and not is_digest(event.detail.get("manifest")):
        raise _damaged(remote, name, seq, f"the sha256 of a manifest is missing in {event.verb!r}")
    return event


def _damaged(remote: RemoteStore, name: str, seq: int, why: str) -> DamagedObjectError:
    advice = (
        f"Restore it from a backup; or remove {remote.url}/models/{name}/log/, and `tl registry push {name} {remote.url}` "
        "from a registry with the whole history writes the log again."
    )
    return DamagedObjectError(f"{remote.url}/{log_key(name, seq)}", why, advice)


def append_entry(
    remote: RemoteStore, name: str, events: list[Event], decide: Callable[[list[Event]], Entry | None], now: datetime
) -> list[Event]:
    """Append to a log unless ``decide`` declines, and return the log as it is then.

    Args:
        remote: the shared registry.
        name: model name.
        events: the log as it was read.
        decide: returns the entry that continues a log, or None; called again if another process was faster.
        now: when it happened.
    """
    for _ in range(MAX_TRIES):
        entry = decide(events)
        if entry is None:
            return events
        event = following(events[-1] if events else None, entry, now)
        if remote.create(log_key(name, event.seq), event.model_dump_json().encode() + b"\n"):
            return [*events, event]
        events = read_log(remote, name, events)
    raise RemoteError(remote.url, f"{MAX_TRIES} other processes were faster to append to the log of {name}")


def digests_by_version(events: Sequence[Event]) -> dict[int, set[str]]:
    """Return the digests of the manifests that a log has ever published under each version number."""
    digests: dict[int, set[str]] = {}
    for event in events:
        if event.verb in CREATIONS and event.version is not None:
            digests.setdefault(event.version, set()).add(str(event.detail["manifest"]))
    return digests


def missing_from(events: Sequence[Event], others: Sequence[Event]) -> list[Event]:
    """Return the events of one log that another does not have.

    Args:
        events: the log.
        others: the other log.
    """
    present = {identity(event) for event in others}
    return [event for event in events if identity(event) not in present]


def entries_to_share(ours: Sequence[Event], theirs: Sequence[Event]) -> list[tuple[Event, Entry]]:
    """Return the events of a local log that a shared one lacks, with the entries that copy them, oldest first.

    Args:
        ours: events of a model in the local registry.
        theirs: its log in the shared registry.
    """
    alive = {version: digest for (_, version), digest in replay(ours).versions.items()}
    shared = {identity(event) for event in theirs}
    last_shared = {event.alias: place for place, event in enumerate(ours) if event.alias and identity(event) in shared}
    entries = []
    for place, event in enumerate(ours):
        if identity(event) in shared:
            continue
        entry = copied(event)
        is_stale = event.alias is not None and place < last_shared.get(event.alias, -1)
        if is_stale or event.verb == "deleted" or _is_gone(event, alive):
            entry = superseded(entry)
        entries.append((event, entry))
    return entries


def superseded(entry: Entry) -> Entry:
    """Return the entry that keeps another one on record without its effect."""
    facts = {"verb": entry.verb, "alias": entry.alias}
    return replace(entry, verb="superseded", alias=None, detail=entry.detail | facts)


def _is_gone(event: Event, alive: dict[int, str]) -> bool:
    """Return whether the version of an event was deleted from the local registry."""
    if event.version is None:
        return False
    if event.verb in CREATIONS:
        return alive.get(event.version) != event.detail["manifest"]
    return event.version not in alive
