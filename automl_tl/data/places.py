"""Which part each image is in, by the digest of its bytes: on disk, as the records are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, final

from automl_tl.data.on_disk import TemporaryDatabase
from automl_tl.values import Part

__all__ = ["Places"]

SCHEMA: Final = "CREATE TABLE places (digest PRIMARY KEY, part) WITHOUT ROWID"


@final
class Places(Mapping[str, Part]):
    """Part by digest, sorted by digest. The last place that an image is given counts."""

    def __init__(self) -> None:
        self._database = TemporaryDatabase(SCHEMA)

    def add(self, places: Iterable[tuple[str, Part]]) -> None:
        """Gives images their places."""
        self._database.add("INSERT OR REPLACE INTO places VALUES (?, ?)", places)

    def __getitem__(self, digest: str) -> Part:
        for (part,) in self._database.ask("SELECT part FROM places WHERE digest = ?", digest):
            found: Part = part
            return found
        raise KeyError(digest)

    def __iter__(self) -> Iterator[str]:
        return (digest for (digest,) in self._database.ask("SELECT digest FROM places ORDER BY digest"))

    def __len__(self) -> int:
        return int(next(self._database.ask("SELECT COUNT(*) FROM places"))[0])

    def __repr__(self) -> str:
        return f"<{len(self)} places on disk>"
