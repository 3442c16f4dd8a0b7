"""The parts of a registry, put together, as the verbs need them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from automl_tl_registry.blobs import BlobStore
from automl_tl_registry.database import Database
from automl_tl_registry.disk import Disk
from automl_tl_registry.errors import DamagedDatabaseError
from automl_tl_registry.mirror import Mirror
from automl_tl_registry.names import checked_text
from automl_tl_registry.values import VersionView

__all__ = ["Clock", "Probe", "Store", "utc_now"]

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
