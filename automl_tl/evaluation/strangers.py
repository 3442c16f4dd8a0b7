"""Images of a kind that the model never saw: how far their features are from everything it learned from.

Score: cosine distance to the k-th nearest training image, on features of unit length (Sun et al., "Out-of-Distribution
Detection with Deep Nearest Neighbors", ICML 2022). No training, no assumption on the shape of the classes; the same memory
shows the nearest training images and measures drift. Against Mahalanobis distances it was a tie (DECISIONS 11).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from automl_tl.evaluation.arrays import FloatArray

__all__ = ["OWN_REFUSED", "NUM_NeighborS", "nearest", "stranger_scores", "stranger_threshold", "unit_length"]

NUM_NeighborS: Final = 5
OWN_REFUSED: Final = 0.05  # share of images like those of training that are refused: the stated cost
CHUNK: Final = 1024  # rows at once: 1024 x 20,000 similarities are 80 MiB

Matrix = npt.NDArray[np.float32]


def unit_length(features: FloatArray) -> Matrix:
    """Rows of ``features`` ``(N, D)`` scaled to length 1, float32; a row of zeros stays."""
    wide = np.asarray(features, dtype=np.float32)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def nearest(
    features: FloatArray, memory: FloatArray, count: int, *, leave_self_out: bool = False
) -> tuple[npt.NDArray[np.int64], Matrix]:
    """Rows of ``memory`` that are most like each image, and the cosine distances to them, 0 to 2, nearest first.

    Args:
        features: ``(N, D)``, of the images.
        memory: ``(M, D)``, of the training images.
        count: how many, at most M.
        leave_self_out: the images are the memory itself, row by row: an image is no neighbor of its own.

    Returns:
        Indices ``(N, K)`` and distances ``(N, K)``, K the smaller of ``count`` and what there is.
    """
    queries, keys = unit_length(features), unit_length(memory)
    count = max(1, min(count, len(keys) - leave_self_out))
    indices, distances = [], []
    for start in range(0, len(queries), CHUNK):
        similar = queries[start : start + CHUNK] @ keys.T
        if leave_self_out:
            rows = np.arange(len(similar))
            similar[rows, start + rows] = -np.inf
        best = np.sort(np.argpartition(-similar, count - 1, axis=1)[:, :count], axis=1)
        order = np.argsort(-np.take_along_axis(similar, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        indices.append(best)
        distances.append(1 - np.take_along_axis(similar, best, axis=1))
    if not indices:
        return np.zeros((0, count), dtype=np.int64), np.zeros((0, count), dtype=np.float32)
    return np.concatenate(indices), np.asarray(np.concatenate(distances), dtype=np.float32)


def stranger_scores(features: FloatArray, memory: FloatArray, *, leave_self_out: bool = False) -> Matrix:
    """How strange each image is, ``(N,)``, 0 (a training image) to 2: distance to the fifth nearest training image."""
    _, distances = nearest(features, memory, NUM_NeighborS, leave_self_out=leave_self_out)
    return distances[:, -1]


def stranger_threshold(memory: FloatArray, own_refused: float = OWN_REFUSED) -> float:
    """The score from which on an image is called a stranger; about ``own_refused`` of images like the training's are.

    The ``ceil((M + 1) (1 - own_refused))``-th smallest of the scores that the training images have among each other, as in
    split conformal prediction; near-duplicates in training make it too strict, so it takes more images of its own.

    Args:
        memory: ``(M, D)``, features of the training images.
        own_refused: 0 to 1.
    """
    scores = np.sort(stranger_scores(memory, memory, leave_self_out=True))
    rank = math.ceil((len(scores) + 1) * (1 - own_refused))
    return math.inf if rank > len(scores) else float(scores[rank - 1])
