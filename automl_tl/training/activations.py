"""What is computed once per image and kept on disk: canvases, features, activations in front of the blocks that learn.

A store is a folder of segments, each an array of rows beside the digests of their images. A segment appears whole or not
at all, so two processes may write at once and a killed one loses only the segment it was at. The key of a store covers
all that a row depends on besides the image's own bytes: the blocks' weights, the preprocessing, the view.
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

__all__ = ["Cache", "Rows"]

SEGMENT_BATCHES: Final = 8  # what a killed run loses at most
Array = NDArray[Any]
Compute = Callable[[LabeledImages], Iterator[Array]]


class Store:
    """Rows by image digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segments: list[np.memmap[Any, Any]] = []
        self._where: dict[str, tuple[int, int]] = {}
        for digests_file in sorted(folder.glob("*.digests.npy")) if folder.is_dir() else ():
            self._open(digests_file)

    def touch(self) -> None:
        """Say that the store is in use: what was used longest ago is the first to go when the cache is full."""
        if self._folder.is_dir():
            os.utime(self._folder)

    def missing(self, digests: Sequence[str]) -> list[int]:
        """Positions in ``digests`` of images that have no row yet; of several equal ones the first."""
        first = {digest: position for position, digest in reversed(list(enumerate(digests)))}
        return sorted(position for digest, position in first.items() if digest not in self._where)

    def append(self, digests: Sequence[str], rows: Array) -> None:
        """Add ``rows`` ``(N, ...)``; visible to others once both files are there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        self._write(f"{name}.rows.npy", rows)
        raw = np.frombuffer(b"".join(map(bytes.fromhex, digests)), dtype=np.uint8).reshape(-1, 32)
        self._open(self._write(f"{name}.digests.npy", raw))

    def take(self, digests: Sequence[str]) -> Array:
        """Rows ``(N, ...)`` of the images, in the order of ``digests``; all must be there."""
        places = [self._where[digest] for digest in digests]
        return np.stack([self._segments[segment][row] for segment, row in places])

    def read(self, digests: Sequence[str]) -> Array:
        """The same for many: file after file, since pages that are mapped once stay in the memory of the process."""
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
        except OSError:  # somebody else cleared the cache: what is mapped is still there
            return self._segments[segment]
        return rows

    def _open(self, digests_file: Path) -> None:
        rows_file = digests_file.with_name(digests_file.name.replace(".digests.", ".rows."))
        try:
            rows, digests = np.load(rows_file, mmap_mode="r"), np.load(digests_file)
        except (FileNotFoundError, ValueError, EOFError):  # cut off when the power went: as if it had never been computed
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
class Rows:
    """The rows of some images in a store, read when they are asked for."""

    store: Store
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
class Cache:
    """All stores, in one folder."""

    folder: Path
    progress: Progress
    is_over: Callable[[], bool] = field(default=lambda: False)  # whether there is no more time to compute rows

    def within(self, deadline: Deadline, *, reserve_s: float) -> Cache:
        """The same, but computing ends when no more than ``reserve_s`` of the budget are left."""
        return replace(self, is_over=lambda: deadline.left_s <= reserve_s)

    def missing(self, images: LabeledImages, key: Sequence[str]) -> list[int]:
        """Positions of the images that the store called ``key`` has no row of."""
        return self._store(key).missing([record.digest for record in images.records])

    def rows(self, images: LabeledImages, key: Sequence[str], compute: Compute, *, description: str) -> Rows:
        """Rows of ``images``; those that the store called ``key`` doesn't have come from ``compute``, in batches.

        Raises:
            OutOfTime: time was over before all were there; those that were computed are kept.
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
        return Rows(store, digests)

    def _segments(self, computed: Iterator[Array], advance: Advance) -> Iterator[Array]:
        """What is kept at once: some batches, or those that there are when time is over."""
        few: list[Array] = []
        for rows in computed:
            few.append(rows)
            advance(len(rows))
            if len(few) == SEGMENT_BATCHES or self.is_over():
                yield np.concatenate(few)
                few = []
        if few:
            yield np.concatenate(few)

    def _store(self, key: Sequence[str]) -> Store:
        return Store(self.folder / "activations" / hashlib.sha256("\0".join(key).encode()).hexdigest())
