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

from automl_tl_registry.blobs import BlobStore
from automl_tl_registry.database import Database
from automl_tl_registry.disk import Disk, file_lock
from automl_tl_registry.errors import DamagedDatabaseError, RegistryError
from automl_tl_registry.journal import load_events
from automl_tl_registry.names import checked_text
from automl_tl_registry.values import Event, VersionView

__all__ = ["Clock", "Mirror", "Probe", "Store", "utc_now"]

# --------------------------------------------------------------------------------------------------------------- mirror

TAIL_BYTES: Final = 1 << 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mirror:
    """The file at ``path``."""

    path: Path
    disk: Disk

    def follow(self, database: Database) -> None:
        """Append the events that are missing. A failure is logged, not raised: what was committed is committed."""
        try:
            with file_lock(self.path.with_suffix(".lock")):
                seq, end = self._last()
                events = database.read(lambda connection: list(load_events(connection, "seq > ?", [seq])))
                if events:
                    self.disk.append(self.path, b"".join(_line(event) for event in events), at_byte=end)
        except (OSError, ValueError, RegistryError) as error:
            _log.warning("%s lags behind the database and will be completed by the next change: %s", self.path, error)

    def _last(self) -> tuple[int, int]:
        """Number of the last whole event and the byte after it."""
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
        """Events of the file, oldest first; ends at the first line that can't be read."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            for line in stream:
                try:
                    yield _parsed(line)
                except ValidationError:
                    return

    def num_lines(self) -> int:
        """Number of whole lines, sound or not."""
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
Probe = Callable[[VersionView], object]  # raises when the saved files don't predict what they predicted in training


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Store:
    """A folder and the ways to change it. Making one touches nothing."""

    root: Path
    disk: Disk
    clock: Clock
    probe: Probe | None = None

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
        """The events once more."""
        return Mirror(self.root / "events.jsonl", self.disk)

    @property
    def staging(self) -> Path:
        """Folder of publications in progress."""
        return self.root / "staging"

    def check_not_orphaned(self) -> None:
        """Raise DamagedDatabaseError where blobs or events are left of a registry whose database is gone."""
        left = self.mirror.path.exists() or next(self.blobs.all(), None) is not None
        if left and not self.database.path.exists():  # looked for last: a first publication makes it before all else
            raise DamagedDatabaseError(self.database.path, "it is missing, while blobs or events of a registry are there")

    def actor(self, given: str | None) -> str:
        """``given``, or the user and machine."""
        if given is not None:
            return checked_text(given, what="an actor")
        import getpass
        import socket

        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # no such user, as in some containers
            user = "unknown"
        return f"{user}@{socket.gethostname()}"
