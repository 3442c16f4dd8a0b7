"""A cache on disk for what is computed once per image: canvases, features, activations of frozen blocks.

A store is a folder of segments, each an array of rows and the digests of their images. A segment is written completely or
not at all, so that two processes may write at once and a killed one loses only its unfinished segment. The key of a store
covers everything that a row depends on besides the image's own bytes: the blocks' weights, the preprocessing, the view.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from automl_tl.runtime.budget import Deadline, OutOfTime
from automl_tl.runtime.progress import Advance, Progress
from automl_tl.training.images import LabeledImages

__all__ = ["ActivationCache", "CachedRows"]

BATCHES_PER_SEGMENT: Final = 8  # the most that a killed run loses
Array = NDArray[Any]
Compute = Callable[[LabeledImages], Iterator[Array]]


class ActivationStore:
    """Rows by image digest, in one folder of segments."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segments: list[np.memmap[Any, Any]] = []
        self._where: dict[str, tuple[int, int]] = {}
        for digests_file in sorted(folder.glob("*.digests.npy")) if folder.is_dir() else ():
            self._open(digests_file)

    def touch(self) -> None:
        """Mark the store as used: when the cache is full, the least recently used one is evicted."""
        if self._folder.is_dir():
            os.utime(self._folder)

    def missing(self, digests: Sequence[str]) -> list[int]:
        """Positions in ``digests`` of images without a row; of equal digests the first position."""
        first = {digest: position for position, digest in reversed(list(enumerate(digests)))}
        return sorted(position for digest, position in first.items() if digest not in self._where)

    def append(self, digests: Sequence[str], rows: Array) -> None:
        """Add ``rows`` ``(N, ...)``; other processes see them once both files exist.

        Args:
            digests: sha256 of each image, hexadecimal.
            rows: one per digest.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        self._write(f"{name}.rows.npy", rows)
        raw = np.frombuffer(b"".join(map(bytes.fromhex, digests)), dtype=np.uint8).reshape(-1, 32)
        self._open(self._write(f"{name}.digests.npy", raw))

    def take(self, digests: Sequence[str]) -> Array:
        """Rows ``(N, ...)`` of the images, in the order of ``digests``; all must be stored."""
        places = [self._where[digest] for digest in digests]
        return np.stack([self._segments[segment][row] for segment, row in places])

    def read(self, digests: Sequence[str]) -> Array:
        """Rows of many images, read file by file: pages of a memory map would stay in the memory of the process."""
        segments, rows = np.array([self._where[digest] for digest in digests]).T
        like = self._segments[segments[0]]
        result = np.empty((len(digests), *like.shape[1:]), like.dtype)
        order = np.argsort(segments, kind="stable")
        for positions in np.split(order, np.flatnonzero(np.diff(segments[order])) + 1):
            result[positions] = self._whole(segments[positions[0]])[rows[positions]]
        return result

    def _whole(self, segment: int) -> Array:
        try:
            rows: Array = np.load(str(self._segments[segment].filename))
        except OSError:  # another process cleared the cache; the memory map is still valid
            return self._segments[segment]
        return rows

    def _open(self, digests_file: Path) -> None:
        rows_file = digests_file.with_name(digests_file.name.replace(".digests.", ".rows."))
        try:
            rows, digests = np.load(rows_file, mmap_mode="r"), np.load(digests_file)
        except (FileNotFoundError, ValueError, EOFError):  # truncated by a power failure: compute it again
            with suppress(OSError):
                digests_file.unlink(missing_ok=True)
                rows_file.unlink(missing_ok=True)
            return
        self._segments.append(rows)
        number = len(self._segments) - 1
        self._where.update({digest.tobytes().hex(): (number, row) for row, digest in enumerate(digests)})

    def _write(self, name: str, array: Array) -> Path:
        draft = self._folder / f".{name}.draft"
        with draft.open("wb") as file:
            np.save(file, array)
        return draft.rename(self._folder / name)


@dataclass(frozen=True)
class CachedRows:
    """The rows of some images in a store, read on demand."""

    store: ActivationStore
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.digests)

    def at(self, positions: Sequence[int] | NDArray[np.int64]) -> Array:
        """Rows ``(B, ...)`` of the images at ``positions``."""
        return self.store.take([self.digests[position] for position in positions])

    def all(self) -> Array:
        """Rows ``(N, ...)`` of all images."""
        return self.store.read(self.digests)


@dataclass(frozen=True)
class ActivationCache:
    """All stores, in one folder.

    Attributes:
        folder: contains the stores.
        progress: of computing rows.
        is_over: whether time is up for computing rows.
    """

    folder: Path
    progress: Progress
    is_over: Callable[[], bool] = field(default=lambda: False)

    def within(self, deadline: Deadline, *, reserve_s: float) -> ActivationCache:
        """The same cache, in which computing ends once only ``reserve_s`` seconds of the budget are left."""
        return replace(self, is_over=lambda: deadline.left_s <= reserve_s)

    def missing(self, images: LabeledImages, key: Sequence[str]) -> list[int]:
        """Positions of the images without a row in the store of ``key``."""
        return self._store(key).missing([record.digest for record in images.records])

    def rows(self, images: LabeledImages, key: Sequence[str], compute: Compute, *, description: str) -> CachedRows:
        """Rows of ``images``; missing ones are computed and stored.

        Args:
            images: the images.
            key: everything that a row depends on besides the image's bytes.
            compute: yields the rows of the missing images, in batches.
            description: for the progress bar.

        Raises:
            OutOfTime: time was up before all rows were computed; the finished ones are kept.
        """
        store = self._store(key)
        store.touch()
        digests = tuple(record.digest for record in images.records)
        missing = images.at(store.missing(digests))
        if len(missing):
            ahead = iter([record.digest for record in missing.records])
            with self.progress.track(description, len(missing)) as advance:
                for segment in self._segments(compute(missing), advance):
                    store.append(list(islice(ahead, len(segment))), segment)
                    if self.is_over() and store.missing(digests):
                        raise OutOfTime
        return CachedRows(store, digests)

    def _segments(self, computed: Iterator[Array], advance: Advance) -> Iterator[Array]:
        """Join batches into segments; when time is up, the batches computed so far."""
        pending: list[Array] = []
        for rows in computed:
            pending.append(rows)
            advance(len(rows))
            if len(pending) == BATCHES_PER_SEGMENT or self.is_over():
                yield np.concatenate(pending)
                pending = []
        if pending:
            yield np.concatenate(pending)

    def _store(self, key: Sequence[str]) -> ActivationStore:
        return ActivationStore(self.folder / "activations" / hashlib.sha256("\0".join(key).encode()).hexdigest())
