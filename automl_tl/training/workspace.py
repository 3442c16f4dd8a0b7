"""Where planning and training work: folders, deadline, progress, device, and the cache of what is computed once per image.

Canvases, features and activations of frozen blocks are cached on disk. A store is a folder of segments, each an array of rows
and the digests of their images, written completely or not at all: two processes may write at once, or be killed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from automl_tl.data.decode import DECODER
from automl_tl.models.engines import OpenVinoEngine, best_device
from automl_tl.plugin_host.levels import Parts
from automl_tl.runtime.budget import Deadline, OutOfTime
from automl_tl.runtime.progress import Advance, Progress
from automl_tl.runtime.resources import writing_to
from automl_tl.training.closed_form import Solution, Solver, solve
from automl_tl.training.images import LabeledImages

_log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 1 << 20
BATCHES_PER_SEGMENT: Final = 8  # the most that a killed run loses
MIB_PER_PARAMETER: Final = 4 / 2**20  # float32
# Publishing starts a process that imports torch, loads the model and checks the reference predictions: so many times as long
# as importing torch took in this process; if that is unknown, the time measured on two cores (decision 37).
PUBLISHING_S: Final = 5.0
PUBLISHING_PER_START: Final = 2.5
PUBLISHING_S_PER_MIB: Final = 0.03  # to write, hash, copy and load

Array = NDArray[Any]
Compute = Callable[[LabeledImages], Iterator[Array]]
ComputeElsewhere = Callable[[LabeledImages, Callable[[], bool]], Iterator[tuple[Sequence[str], Array]]]


class _ActivationStore:
    """Rows by image digest, in one folder of segments."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if folder.is_dir():
            os.utime(folder)  # the cache evicts the least recently used store first
        self._segments: list[np.memmap[Any, Any]] = []
        self._where: dict[str, tuple[int, int]] = {}
        for digests_file in sorted(folder.glob("*.digests.npy")) if folder.is_dir() else ():
            self._open(digests_file)

    def missing(self, digests: Sequence[str]) -> list[int]:
        """Positions in ``digests`` of images without a row; of equal digests the first position."""
        first = {digest: position for position, digest in reversed(list(enumerate(digests)))}
        return sorted(position for digest, position in first.items() if digest not in self._where)

    def append(self, digests: Sequence[str], rows: Array) -> None:
        """Add ``rows`` ``(N, ...)`` by hexadecimal sha256; other processes see them once both files exist."""
        rows, raw = np.ascontiguousarray(rows), b"".join(map(bytes.fromhex, digests))
        name = f"{uuid.uuid4().hex}-{zlib.crc32(raw, zlib.crc32(rows.view(np.uint8).data)):08x}"
        with writing_to(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(f"{name}.rows.npy", rows)
            digests_file = self._write(f"{name}.digests.npy", np.frombuffer(raw, dtype=np.uint8).reshape(-1, 32))
            self._open(digests_file, is_new=True)

    def take(self, digests: Sequence[str]) -> Array:
        """Rows ``(N, ...)`` of a few images, in the order of ``digests``; all must be stored."""
        places = [self._where[digest] for digest in digests]
        return np.stack([self._segments[segment][row] for segment, row in places])

    def read(self, digests: Sequence[str]) -> Array:
        """Rows of many images, read file by file: pages of a memory map would stay in the memory of the process."""
        segments, rows = np.array([self._where[digest] for digest in digests]).T
        like = self._segments[segments[0]]
        result = np.empty((len(digests), *like.shape[1:]), like.dtype)
        order = np.argsort(segments, kind="stable")
        for positions in np.split(order, np.flatnonzero(np.diff(segments[order])) + 1):
            segment = self._segments[segments[positions[0]]]
            with suppress(OSError):  # another process cleared the cache; the memory map is still valid
                segment = np.load(str(segment.filename))
            result[positions] = segment[rows[positions]]
        return result

    def _open(self, digests_file: Path, *, is_new: bool = False) -> None:
        rows_file = digests_file.with_name(digests_file.name.replace(".digests.", ".rows."))
        try:
            rows, digests = np.load(rows_file, mmap_mode="r"), np.load(digests_file)
            if not is_new:
                checksum = zlib.crc32(digests.tobytes(), _checksum(rows_file, rows.offset, rows_file.stat().st_mtime_ns))
                if not rows_file.name.endswith(f"-{checksum:08x}.rows.npy"):
                    raise ValueError("another checksum")
        except (FileNotFoundError, ValueError, EOFError):  # left half-written by a power failure: compute it again
            with suppress(OSError):
                digests_file.unlink(missing_ok=True)
                rows_file.unlink(missing_ok=True)
            return
        self._where.update({digest.tobytes().hex(): (len(self._segments), row) for row, digest in enumerate(digests)})
        self._segments.append(rows)

    def _write(self, name: str, array: Array) -> Path:
        draft = self._folder / f".{name}.draft"
        try:
            with draft.open("wb") as file:
                np.save(file, array)
        except OSError:  # leave nothing behind on a full disk
            draft.unlink(missing_ok=True)
            raise
        return draft.replace(self._folder / name)


@cache
def _checksum(rows_file: Path, offset: int, _changed_ns: int) -> int:
    """CRC-32 of the rows in a file, read once per process: a memory map's pages would stay in its memory."""
    checksum = 0
    with rows_file.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


@dataclass(frozen=True)
class CachedRows:
    """The rows of some images in a store, read on demand."""

    store: _ActivationStore
    digests: tuple[str, ...]
    transform: Callable[[Array], Array] = field(default=lambda rows: rows)  # of the stored rows (B, ...)

    def __len__(self) -> int:
        return len(self.digests)

    def at(self, positions: Sequence[int] | NDArray[np.int64]) -> Array:
        """Rows ``(B, ...)`` of the images at ``positions``."""
        return self.transform(self.store.take([self.digests[position] for position in positions]))

    def all(self) -> Array:
        """Rows ``(N, ...)`` of all images."""
        return self.transform(self.store.read(self.digests))


@dataclass(frozen=True)
class ActivationCache:
    """All stores, in one folder; ``is_over`` returns whether the time for computing rows is up."""

    folder: Path
    progress: Progress
    is_over: Callable[[], bool] = field(default=lambda: False)
    compiled: dict[Path, OpenVinoEngine] = field(default_factory=dict)  # see ``fastest_engine``

    def within(self, deadline: Deadline, *, reserve_s: float) -> ActivationCache:
        """Return the same cache, in which computing ends with the budget.

        Args:
            deadline: of the command.
            reserve_s: seconds of the budget to leave.
        """
        return replace(self, is_over=lambda: deadline.left_s <= reserve_s)

    def rows(self, images: LabeledImages, key: Sequence[str], compute: Compute, *, description: str) -> CachedRows:
        """Return the rows of ``images``, and compute the missing ones.

        Args:
            images: one row each.
            key: everything that a row depends on besides the image's bytes and the decoder.
            compute: yields the rows of the images it is given, in batches.
            description: for the progress bar.

        Raises:
            OutOfTime: time was up before all rows were computed; the finished ones are kept.
        """
        store = self.store(key)
        digests = images.digests
        missing = images.at(store.missing(digests))
        _log.debug("%s: %d of %d cached", description, len(digests) - len(missing), len(digests))
        if len(missing):
            ahead = iter(missing.digests)
            with self.progress.track(description, len(missing)) as advance:
                for segment in self._segments(compute(missing), advance):
                    store.append(list(islice(ahead, len(segment))), segment)
                    if self.is_over() and store.missing(digests):
                        raise OutOfTime
        return CachedRows(store, digests)

    def collect(self, images: LabeledImages, key: Sequence[str], compute: ComputeElsewhere, *, description: str) -> CachedRows:
        """Return the rows of ``images`` as ``rows`` does; other machines compute the missing ones.

        Args:
            images: one row each.
            key: as of ``rows``.
            compute: yields digests and rows of some of the images it is given, until ``is_over`` returns true.
            description: for the progress bar.

        Raises:
            OutOfTime: time was up before all rows were computed; the finished ones are kept.
        """
        store = self.store(key)
        missing = images.at(store.missing(images.digests))
        _log.debug("%s: %d of %d cached", description, len(images) - len(missing), len(images))
        if len(missing):
            with self.progress.track(description, len(missing)) as advance:
                for digests, segment in compute(missing, self.is_over):
                    store.append(digests, segment)
                    advance(len(segment))
            if store.missing(images.digests):
                raise OutOfTime
        return CachedRows(store, images.digests)

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

    def store(self, key: Sequence[str]) -> _ActivationStore:
        """The store of ``key``; each version of Pillow decodes and resizes a little differently (decision 13)."""
        digest = hashlib.sha256("\0".join((*key, DECODER)).encode()).hexdigest()
        return _ActivationStore(self.folder / "activations" / digest)


@dataclass(frozen=True)
class Workspace:
    """Folders, deadline, progress and device of one command."""

    folder: Path  # temporary, of this command alone
    cache_dir: Path  # shared by all commands
    deadline: Deadline
    progress: Progress
    device: torch.device = field(default_factory=best_device)
    _solutions: dict[str, Solution] = field(default_factory=dict, repr=False)
    _compiled: dict[Path, OpenVinoEngine] = field(default_factory=dict, repr=False)

    @property
    def cache(self) -> ActivationCache:
        """Cache of what pretrained weights compute; later fits use it again."""
        return ActivationCache(self.cache_dir, self.progress, compiled=self._compiled)

    @property
    def scratch(self) -> ActivationCache:
        """Cache of what this command's own weights compute; deleted with the folder."""
        return ActivationCache(self.folder, self.progress)

    def publishing_s(self, size_mib: float) -> float:
        """Seconds to register a trained model whose files have ``size_mib`` MiB."""
        startup_s = self.deadline.startup_s
        new_process_s = PUBLISHING_S if startup_s is None else PUBLISHING_PER_START * startup_s
        return new_process_s + PUBLISHING_S_PER_MIB * size_mib

    def solve(  # noqa: PLR0913 - the data, and how to solve
        self,
        features: NDArray[np.float32],
        images: LabeledImages,
        *,
        solver: Solver,
        num_classes: int,
        seed: int,
        parts: Parts = (),
        class_weights: NDArray[np.float64] | None = None,
    ) -> Solution:
        """Return a fitted closed-form head; the same one if planning fitted it on the same features.

        Args:
            features: ``(N, D)``; overwritten if ``N > D``.
            images: give labels and groups.
            solver: of the head.
            num_classes: width of the scores.
            seed: of the folds.
            parts: of multi-level features.
            class_weights: ``(C,)``, how much an image of each class counts; ``None``: all alike.
        """
        key = hashlib.sha256(f"{solver} {num_classes} {seed} {features.shape} {parts}".encode())
        for array in (features, images.labels, images.groups, *([] if class_weights is None else [class_weights])):
            key.update(np.ascontiguousarray(array).data)
        digest = key.hexdigest()
        if digest not in self._solutions:
            self._solutions[digest] = solve(
                features,
                images.labels,
                images.groups,
                solver=solver,
                num_classes=num_classes,
                seed=seed,
                parts=parts,
                class_weights=class_weights,
            )
        return self._solutions[digest]
