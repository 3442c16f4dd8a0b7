"""What a model remembers of its training images: enough to know strangers, to show the nearest, and to see drift.

It travels beside the model as one safetensors file: features as float16, 2.5 MiB for a thousand images of 1280 features.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from automl_tl.errors import ModelError
from automl_tl.evaluation.arrays import FloatArray, IntArray
from automl_tl.evaluation.strangers import stranger_scores, stranger_threshold, unit_length

__all__ = ["MAX_REMEMBERED", "ROLE", "TrainingMemory", "read_memory", "remember", "remembered", "write_memory"]

MAX_REMEMBERED: Final = 4000  # 10 MiB at 1280 features; more neighbors than that hardly sharpen a score
ROLE: Final = "memory"  # of the blob in the registry
METADATA_KEY: Final = "automl_tl_memory"


@dataclass(frozen=True)
class TrainingMemory:
    """Training images as the model sees them; row by row.

    Attributes:
        features: ``(M, D)``, float16, unit length.
        labels: ``(M,)``, class indices.
        paths: M paths inside the source that the model learned from.
        threshold: score from which on an image is a stranger.
        held_out_labels: ``(N,)``, class indices of images that the model (or its folds) didn't learn from.
        held_out_probabilities: ``(N, C)``, float32, what it said of them; N may be 0.
    """

    features: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int64]
    paths: tuple[str, ...]
    threshold: float
    held_out_labels: npt.NDArray[np.int64]
    held_out_probabilities: npt.NDArray[np.float32]

    def strangeness(self, features: FloatArray) -> npt.NDArray[np.float32]:
        """How strange each image is, ``(N,)``, as a multiple of the threshold: above 1 it is a stranger."""
        scores = stranger_scores(features, self.features)
        return np.asarray(scores / self.threshold if np.isfinite(self.threshold) else np.zeros_like(scores), dtype=np.float32)


def remembered(num_images: int, *, seed: int) -> list[int]:
    """Positions of the images to remember, of ``num_images``: all, or a random 4000, the same for the same ``seed``."""
    rows = np.arange(num_images)
    if num_images > MAX_REMEMBERED:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_REMEMBERED, replace=False))
    return [int(row) for row in rows]


def remember(
    features: FloatArray, labels: IntArray, paths: tuple[str, ...], *, held_out: tuple[IntArray, FloatArray] | None = None
) -> TrainingMemory:
    """Memory of images that a model learned from.

    Args:
        features: ``(M, D)``, what the encoder says of them.
        labels: ``(M,)``, class indices.
        paths: M paths.
        held_out: labels ``(N,)`` and calibrated probabilities ``(N, C)``, out of fold or of validation images.
    """
    kept = unit_length(np.asarray(features)).astype(np.float16)
    told, said = held_out or (np.zeros(0, dtype=np.int64), np.zeros((0, 1), dtype=np.float32))
    return TrainingMemory(
        features=kept,
        labels=np.asarray(labels, dtype=np.int64),
        paths=paths,
        threshold=stranger_threshold(kept),
        held_out_labels=np.asarray(told, dtype=np.int64),
        held_out_probabilities=np.asarray(said, dtype=np.float32),
    )


def write_memory(file: Path, memory: TrainingMemory) -> Path:
    """Write ``memory`` to ``file``; the same memory gives the same bytes."""
    from safetensors.numpy import save_file

    arrays = {
        "features": memory.features,
        "labels": memory.labels,
        "held_out_labels": memory.held_out_labels,
        "held_out_probabilities": memory.held_out_probabilities,
        "threshold": np.array([memory.threshold], dtype=np.float64),
    }
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, file, {METADATA_KEY: json.dumps(memory.paths)}
    )
    return file


def read_memory(file: Path) -> TrainingMemory:
    """The memory in ``file``; runs no code from it.

    Raises:
        ModelError: the file is no memory, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            paths = json.loads((opened.metadata() or {})[METADATA_KEY])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - safe_open is no mapping
        if not isinstance(paths, list) or len(paths) != len(arrays["features"]):
            raise ValueError("its paths don't fit its features")
        return TrainingMemory(
            features=arrays["features"],
            labels=arrays["labels"],
            paths=tuple(str(path) for path in paths),
            threshold=float(arrays["threshold"][0]),
            held_out_labels=arrays["held_out_labels"],
            held_out_probabilities=arrays["held_out_probabilities"],
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{file} can't be read as a model's memory of its training images: {error}") from error
