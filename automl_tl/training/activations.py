"""What the frozen blocks make of an image, kept on disk, so that it is computed once.

A store is a folder of segments, each an array of rows beside the digests of their images. A segment appears whole or not
at all, so two processes may write at once and a killed one loses only the segment it was at. The key of a store covers
the blocks' weights and the preprocessing; nothing else ever makes a row wrong.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.inference.engines import Engine
from automl_tl.inference.features import embed
from automl_tl.inference.streams import batches
from automl_tl.story import Story
from automl_tl.training.images import LabelledImages
from automl_tl.values import Preprocessing

__all__ = ["ActivationStore", "activations_of", "blocks_digest"]

SEGMENT_BATCHES = 8  # what a killed run loses at most


class ActivationStore:
    """Rows by image digest, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segments: list[NDArray[np.float32]] = []
        self._where: dict[bytes, tuple[int, int]] = {}
        for digests_file in sorted(folder.glob("*.digests.npy")) if folder.is_dir() else ():
            self._open(digests_file)

    def missing(self, digests: Sequence[str]) -> list[int]:
        """Positions in ``digests`` of images that have no row yet; of several equal ones the first."""
        first = {digest: position for position, digest in reversed(list(enumerate(digests)))}
        return sorted(position for digest, position in first.items() if bytes.fromhex(digest) not in self._where)

    def append(self, digests: Sequence[str], rows: NDArray[np.float32]) -> None:
        """Add ``rows`` ``(N, ...)``; visible to others once both files are there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        self._write(f"{name}.rows.npy", rows)
        raw = np.frombuffer(b"".join(bytes.fromhex(digest) for digest in digests), dtype=np.uint8).reshape(-1, 32)
        self._open(self._write(f"{name}.digests.npy", raw))

    def take(self, digests: Sequence[str]) -> NDArray[np.float32]:
        """Rows ``(N, ...)`` of the images, in the order of ``digests``; all must be there."""
        places = [self._where[bytes.fromhex(digest)] for digest in digests]
        return np.stack([self._segments[segment][row] for segment, row in places])

    def _open(self, digests_file: Path) -> None:
        rows_file = digests_file.with_name(digests_file.name.replace(".digests.", ".rows."))
        digests = np.load(digests_file)
        self._segments.append(np.load(rows_file, mmap_mode="r"))
        number = len(self._segments) - 1
        self._where.update({digest.tobytes(): (number, row) for row, digest in enumerate(digests)})

    def _write(self, name: str, array: NDArray[np.generic]) -> Path:
        draft = self._folder / f".{name}.draft"
        with draft.open("wb") as file:
            np.save(file, array)
        target = self._folder / name
        draft.rename(target)
        return target


def blocks_digest(blocks: nn.Module) -> str:
    """sha256 over the tensors of ``blocks``."""
    total = hashlib.sha256()
    for name, tensor in blocks.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def activations_of(
    images: LabelledImages,
    *,
    cache_dir: Path,
    key: str,
    preprocessing: Preprocessing,
    engine: Callable[[], Engine],
    story: Story,
) -> NDArray[np.float32]:
    """Rows ``(N, ...)`` of ``engine`` for ``images``, computed where the cache under ``cache_dir`` has none.

    Args:
        images: the images.
        cache_dir: folder of all caches.
        key: digest of the blocks that ``engine`` runs.
        preprocessing: how images are made ready.
        engine: builds the engine; called only if an image is missing.
        story: shows the progress.
    """
    full_key = hashlib.sha256(f"{key} {preprocessing.model_dump_json()}".encode()).hexdigest()
    store = ActivationStore(cache_dir / "activations" / full_key)
    digests = [record.digest for record in images.records]
    missing = images.at(store.missing(digests))
    if len(missing):
        _compute(missing, store, preprocessing, engine(), story)
    return store.take(digests)


def _compute(
    images: LabelledImages, store: ActivationStore, preprocessing: Preprocessing, engine: Engine, story: Story
) -> None:
    digests = iter([record.digest for record in images.records])
    rows = embed([record.path for record in images.records], images.read, engine, preprocessing)
    with story.track("looking at images", len(images)) as advance:
        for few in batches(rows, SEGMENT_BATCHES):
            segment = np.concatenate(few)
            store.append(list(islice(digests, len(segment))), segment)
            advance(len(segment))
