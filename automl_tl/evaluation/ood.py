"""Out-of-distribution (OOD) images: how far their features are from those of the training images.

Score: cosine distance to the k-th nearest training image, on features of unit length (Sun et al., "Out-of-Distribution
Detection with Deep Nearest Neighbors", ICML 2022). It needs no training and no assumption on the shape of the classes, and the
same reference features give the nearest training images and the drift test. Mahalanobis distances did as well (decision 11).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from automl_tl.evaluation.arrays import FloatArray, unit_length

__all__ = ["FALSE_ALARM_RATE", "NUM_NEIGHBORS", "nearest", "ood_scores", "ood_threshold"]

NUM_NEIGHBORS: Final = 5
FALSE_ALARM_RATE: Final = 0.05  # share of in-distribution images that are flagged
CHUNK: Final = 1024  # rows at once: 1024 x 20,000 similarities take 80 MiB

Matrix = npt.NDArray[np.float32]


def nearest(
    features: FloatArray, reference: FloatArray, count: int, *, leave_self_out: bool = False
) -> tuple[npt.NDArray[np.int64], Matrix]:
    """Find the most similar rows of ``reference`` for each row of ``features``.

    Args:
        features: ``(N, D)``.
        reference: ``(M, D)``, of the training images.
        count: number of neighbors.
        leave_self_out: ``features`` and ``reference`` are the same rows, and a row is not its own neighbor.

    Returns:
        Indices ``(N, K)`` and cosine distances ``(N, K)``, 0 to 2, nearest first; K is ``count`` or what ``reference`` has.
    """
    queries, keys = unit_length(features), unit_length(reference)
    count = max(1, min(count, len(keys) - leave_self_out))
    indices, distances = [], []
    for start in range(0, len(queries), CHUNK):
        # 1) Cosine similarities of one chunk.
        similar = queries[start : start + CHUNK] @ keys.T
        if leave_self_out:
            rows = np.arange(len(similar))
            similar[rows, start + rows] = -np.inf
        # 2) Select the best, in ascending index order, so that ties resolve the same for every chunk size.
        best = np.sort(np.argpartition(-similar, count - 1, axis=1)[:, :count], axis=1)
        # 3) Order them by similarity.
        order = np.argsort(-np.take_along_axis(similar, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        indices.append(best)
        distances.append(1 - np.take_along_axis(similar, best, axis=1))
    if not indices:
        return np.zeros((0, count), dtype=np.int64), np.zeros((0, count), dtype=np.float32)
    return np.concatenate(indices), np.asarray(np.concatenate(distances), dtype=np.float32)


def ood_scores(features: FloatArray, reference: FloatArray, *, leave_self_out: bool = False) -> Matrix:
    """Cosine distances ``(N,)``, 0 to 2, to the fifth nearest training image.

    Args:
        features: ``(N, D)``.
        reference: ``(M, D)``, of the training images.
        leave_self_out: see :func:`nearest`.
    """
    _, distances = nearest(features, reference, NUM_NEIGHBORS, leave_self_out=leave_self_out)
    return distances[:, -1]


def ood_threshold(reference: FloatArray, false_alarm_rate: float = FALSE_ALARM_RATE) -> float:
    """Score above which an image is out of distribution.

    The ``ceil((M + 1) (1 - false_alarm_rate))``-th smallest score of the training images among each other, as in split
    conformal prediction. Near-duplicates among them make it stricter than stated.

    Args:
        reference: ``(M, D)``, features of the training images.
        false_alarm_rate: share of in-distribution images that may be flagged, 0 to 1.

    Returns:
        The threshold; infinite with too few images for the rate.
    """
    scores = np.sort(ood_scores(reference, reference, leave_self_out=True))
    rank = math.ceil((len(scores) + 1) * (1 - false_alarm_rate))
    return math.inf if rank > len(scores) else float(scores[rank - 1])
