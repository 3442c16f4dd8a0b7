"""Reference features: features of training images that are saved with a model, and out-of-distribution (OOD) scores from them.

Score: cosine distance to the k-th nearest training image, on features of unit length (Sun et al., "Out-of-Distribution
Detection with Deep Nearest Neighbors", ICML 2022; decision 11). The same features give the nearest training images and the
drift test. The file is safetensors with float16 features, 2.5 MiB for a thousand images of 1280 features.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from automl_tl.errors import ModelError

NUM_NEIGHBORS: Final = 5
FALSE_ALARM_RATE: Final = 0.05  # share of in-distribution images that are flagged
CHUNK: Final = 1024  # rows at once: 1024 x 20,000 similarities take 80 MiB
MAX_REFERENCE_IMAGES: Final = 4000  # 10 MiB at 1280 features; more neighbors hardly sharpen a score
ROLE: Final = "reference_features"  # of the blob in the registry
METADATA_KEY: Final = "automl_tl_reference_features"


def unit_length(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale the rows of ``features`` ``(N, D)`` to length 1; rows of zeros stay zero."""
    wide = np.asarray(features, dtype=np.float32)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def nearest(
    features: NDArray[np.floating], reference: NDArray[np.floating], count: int, *, leave_self_out: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the most similar rows of ``reference`` for each row of ``features``, by cosine similarity.

    Args:
        features: ``(N, D)``.
        reference: ``(M, D)``.
        count: number of neighbors.
        leave_self_out: both are the same rows, and a row is not its own neighbor.

    Returns:
        Indices and cosine distances (0 to 2), both ``(N, count)``, nearest first; fewer columns if M is smaller.
    """
    queries, keys = unit_length(features), unit_length(reference)
    count = max(1, min(count, len(keys) - leave_self_out))
    indices = np.zeros((len(queries), count), dtype=np.int64)
    distances = np.zeros((len(queries), count), dtype=np.float32)
    for start in range(0, len(queries), CHUNK):
        # 1) Cosine similarities of one chunk.
        chunk = slice(start, start + CHUNK)
        similar = queries[chunk] @ keys.T
        if leave_self_out:
            rows = np.arange(len(similar))
            similar[rows, start + rows] = -np.inf
        # 2) Select the best, in ascending index order, so that ties resolve the same for every chunk size.
        best = np.sort(np.argpartition(-similar, count - 1, axis=1)[:, :count], axis=1)
        # 3) Order them by similarity.
        order = np.argsort(-np.take_along_axis(similar, best, axis=1), axis=1, kind="stable")
        indices[chunk] = np.take_along_axis(best, order, axis=1)
        distances[chunk] = 1 - np.take_along_axis(similar, indices[chunk], axis=1)
    return indices, distances


def ood_scores(
    features: NDArray[np.floating], reference: NDArray[np.floating], *, leave_self_out: bool = False
) -> NDArray[np.float32]:
    """Return the cosine distances ``(N,)``, 0 to 2, to the fifth nearest training image.

    Args:
        features: ``(N, D)``.
        reference: ``(M, D)``, features of the training images.
        leave_self_out: see ``nearest``.
    """
    return nearest(features, reference, NUM_NEIGHBORS, leave_self_out=leave_self_out)[1][:, -1]


def ood_threshold(reference: NDArray[np.floating]) -> float:
    """Return the score above which an image is out of distribution; infinite with too few images for the false-alarm rate.

    It is the ``ceil((M + 1) (1 - rate))``-th smallest score of the M training images, as in split conformal prediction.
    """
    scores = np.sort(ood_scores(reference, reference, leave_self_out=True))
    rank = math.ceil((len(scores) + 1) * (1 - FALSE_ALARM_RATE))
    return math.inf if rank > len(scores) else float(scores[rank - 1])


@dataclass(frozen=True)
class ReferenceFeatures:
    """Features of M training images and predictions for N held-out images, which may be none."""

    features: NDArray[np.float16]  # (M, D), unit length
    labels: NDArray[np.int64]  # (M,)
    paths: tuple[str, ...]  # M, inside the training source
    threshold: float  # OOD score above which an image is out of distribution
    held_out_labels: NDArray[np.int64]  # (N,), of images that the model (or its folds) didn't train on
    held_out_probabilities: NDArray[np.float32]  # (N, C), predicted for them

    def ood_score(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """OOD scores ``(N,)`` of ``features`` ``(N, D)`` as multiples of the threshold; above 1 is out of distribution."""
        scores = ood_scores(features, self.features)
        return np.asarray(scores / self.threshold if np.isfinite(self.threshold) else np.zeros_like(scores), dtype=np.float32)


def choose_reference_rows(num_images: int, *, seed: int) -> list[int]:
    """Return the ascending positions of the training images to keep: all, or a random sample of ``MAX_REFERENCE_IMAGES``.

    Args:
        num_images: number of training images.
        seed: of the sample.
    """
    rows = np.arange(num_images)
    if num_images > MAX_REFERENCE_IMAGES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_REFERENCE_IMAGES, replace=False))
    return [int(row) for row in rows]


def make_reference_features(
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    paths: tuple[str, ...],
    *,
    held_out: tuple[NDArray[np.integer], NDArray[np.floating]] | None = None,
) -> ReferenceFeatures:
    """Return the reference features of a model.

    Args:
        features: ``(M, D)``, the encoder's output for the training images.
        labels: ``(M,)``.
        paths: M paths.
        held_out: labels ``(N,)`` and calibrated probabilities ``(N, C)``, out of fold or of validation images.
    """
    unit = unit_length(np.asarray(features)).astype(np.float16)
    held_out_labels, probabilities = held_out or (np.zeros(0, dtype=np.int64), np.zeros((0, 1), dtype=np.float32))
    return ReferenceFeatures(
        features=unit,
        labels=np.asarray(labels, dtype=np.int64),
        paths=paths,
        threshold=ood_threshold(unit),
        held_out_labels=np.asarray(held_out_labels, dtype=np.int64),
        held_out_probabilities=np.asarray(probabilities, dtype=np.float32),
    )


def write_reference_features(file: Path, reference: ReferenceFeatures) -> Path:
    """Write a safetensors file and return its path; equal values give equal bytes.

    Args:
        file: to write.
        reference: features and predictions of the model.
    """
    from safetensors.numpy import save_file

    arrays = {
        "features": reference.features,
        "labels": reference.labels,
        "held_out_labels": reference.held_out_labels,
        "held_out_probabilities": reference.held_out_probabilities,
        "threshold": np.array([reference.threshold], dtype=np.float64),
    }
    metadata = {METADATA_KEY: json.dumps(reference.paths)}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file, metadata)
    return file


def read_reference_features(file: Path) -> ReferenceFeatures:
    """Read the reference features in ``file`` without running code from it.

    Raises:
        ModelError: the file holds something else, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            paths = json.loads((opened.metadata() or {})[METADATA_KEY])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - safe_open is not a mapping
        if not isinstance(paths, list) or len(paths) != len(arrays["features"]):
            raise ValueError("its paths don't fit its features")
        return ReferenceFeatures(
            features=arrays["features"],
            labels=arrays["labels"],
            paths=tuple(str(path) for path in paths),
            threshold=float(arrays["threshold"][0]),
            held_out_labels=arrays["held_out_labels"],
            held_out_probabilities=arrays["held_out_probabilities"],
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{file} can't be read as reference features: {error}") from error
