"""``events.jsonl``: the event log once more, as a file, so that aliases, tags and history survive the loss of the database.

It follows the database: after each commit (and before the next, if a process died between the two) the events that it
lacks are appended, under an own file lock. A torn last line is cut off by the next writer. It is also a witness: whoever
changes the log in the database has to change this one too. The blobs alone restore versions and their manifests.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from automl_tl_registry.database import Database
from automl_tl_registry.disk import Disk, file_lock
from automl_tl_registry.errors import RegistryError
from automl_tl_registry.journal import load_events
from automl_tl_registry.values import Event

__all__ = ["Mirror"]

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
