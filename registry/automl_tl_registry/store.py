"""The parts of a registry, put together: folder, disk, blobs, database, and ``events.jsonl``, the mirror of the event log.

The mirror keeps aliases, tags and history when the database is lost; blobs alone restore only versions and manifests. After
each commit (and before the next, if a process died in between) the missing events are appended under a file lock. The next
writer cuts off an incomplete last line. The mirror is also a witness: editing the log in the database means editing this file
too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from automl_tl_registry.database import Database
from automl_tl_registry.errors import DamagedDatabaseError, RegistryError
from automl_tl_registry.journal import load_events
from automl_tl_registry.names import checked_text
from automl_tl_registry.storage import BlobStore, Disk, file_lock
from automl_tl_registry.values import Event, VersionView

__all__ = ["Clock", "Mirror", "PredictionCheck", "Store", "utc_now"]

# --------------------------------------------------------------------------------------------------------------- mirror

TAIL_BYTES: Final = 1 << 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mirror:
    """The mirror of the event log, at ``path``."""

    path: Path
    disk: Disk

    def follow(self, database: Database) -> None:
        """Append the missing events. A failure is logged, not raised, because the commit has already happened."""
        try:
            with file_lock(self.path.with_suffix(".lock")):
                seq, end = self._last()
                events = database.read(lambda connection: list(load_events(connection, "seq > ?", [seq])))
                if events:
                    self.disk.append(self.path, b"".join(_line(event) for event in events), at_byte=end)
        except (OSError, ValueError, RegistryError) as error:
            _log.warning("%s is behind the database; the next change completes it: %s", self.path, error)

    def _last(self) -> tuple[int, int]:
        """Return the number of the last complete event and the offset of the byte after it."""
        if not self.path.exists():
            return 0, 0
        with self.path.open("rb") as stream:
            size = stream.seek(0, 2)
            reach = TAIL_BYTES
            while True:
                stream.seek(max(0, size - reach))
                tail = stream.read()
                end = tail.rfind(b"\n")
                start = tail.rfind(b"\n", 0, max(end, 0))
                if end >= 0 and (start >= 0 or reach >= size):
                    return _parsed(tail[start + 1 : end]).seq, size - len(tail) + end + 1
                if reach >= size:
                    return 0, 0
                reach *= 4

    def events(self) -> Iterator[Event]:
        """Yield the events of the file, oldest first, up to the first unreadable line."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            for line in stream:
                try:
                    yield _parsed(line)
                except ValidationError:
                    return

    def num_lines(self) -> int:
        """Return the number of complete lines, valid or not."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as stream:
            return sum(line.endswith(b"\n") for line in stream)


def _line(event: Event) -> bytes:
    return event.model_dump_json().encode() + b"\n"


def _parsed(line: bytes) -> Event:
    return Event.model_validate_json(line)


# ---------------------------------------------------------------------------------------------------------------- store

Clock = Callable[[], datetime]
PredictionCheck = Callable[[VersionView], object]  # raises when the saved files do not reproduce the reference predictions


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Store:
    """A registry folder and access to its parts. Creating a Store touches no file."""

    root: Path
    disk: Disk
    clock: Clock
    check_predictions: PredictionCheck | None = None

    @property
    def blobs(self) -> BlobStore:
        """The content-addressed files."""
        return BlobStore(self.root / "blobs", self.disk)

    @property
    def database(self) -> Database:
        """Names, versions, aliases, tags, events."""
        return Database(self.root / "registry.sqlite", self.disk)

    @property
    def mirror(self) -> Mirror:
        """The mirror of the event log."""
        return Mirror(self.root / "events.jsonl", self.disk)

    @property
    def staging(self) -> Path:
        """Folder of publications in progress."""
        return self.root / "staging"

    def check_not_orphaned(self) -> None:
        """Raise DamagedDatabaseError if blobs or events exist but the database is missing."""
        left = self.mirror.path.exists() or next(self.blobs.all(), None) is not None
        if left and not self.database.path.exists():  # checked last: a first publication creates it before anything else
            raise DamagedDatabaseError(self.database.path, "it is missing although blobs or events exist")

    def actor(self, name: str | None) -> str:
        """Return ``name`` if it is set and valid; otherwise the current user and host."""
        if name is not None:
            return checked_text(name, what="an actor")
        import getpass
        import socket

        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # user ids without a name, as in some containers
            user = "unknown"
        return f"{user}@{socket.gethostname()}"
