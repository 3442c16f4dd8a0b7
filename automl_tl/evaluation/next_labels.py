"""Which unlabeled images would teach a model the most: uncertain ones, unlike each other."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from automl_tl.evaluation.reference_features import unit_length

NUM_UNCERTAIN: Final = 5  # candidates per image to choose; with 10 and 50, Zhdanov found nearly the same accuracy


def uncertainty(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return 1 minus the margin between the two most probable classes, ``(N,)``: 0 is certain, 1 a tie.

    Args:
        probabilities: ``(N, C)``, calibrated.
    """
    best = -np.partition(-np.asarray(probabilities, dtype=np.float64), 1, axis=1)[:, :2]
    return np.asarray(1 - (best[:, 0] - best[:, 1]))


def choose_diverse_uncertain(features: NDArray[np.floating], probabilities: NDArray[np.floating], num: int) -> list[int]:
    """Return the positions of the images to label next, the most uncertain first. Deterministic.

    Source: Zhdanov, "Diverse mini-batch Active Learning", 2019, arXiv 1901.05954; decision 57 compares it with others.

    Args:
        features: ``(N, D)``, the encoder's output; no two images should be copies of each other.
        probabilities: ``(N, C)``, calibrated.
        num: number of images to choose, at most N.
    """
    from sklearn.cluster import KMeans

    # 1) Keep the most uncertain images, five times as many as wanted.
    doubt = uncertainty(probabilities)
    candidates = np.argsort(-doubt, kind="stable")[: NUM_UNCERTAIN * num]
    if len(candidates) <= num:
        return [int(position) for position in candidates]
    # 2) Cluster them, weighted by uncertainty.
    rows = unit_length(features[candidates])
    weights = doubt[candidates] + 1e-6  # not all zero
    clusters = KMeans(num, n_init=1, random_state=0).fit(rows, sample_weight=weights)
    # 3) Take the image nearest to each center.
    distances = np.linalg.norm(rows - clusters.cluster_centers_[clusters.labels_], axis=1)
    nearest = [min(np.flatnonzero(clusters.labels_ == cluster), key=distances.__getitem__) for cluster in set(clusters.labels_)]
    return [int(position) for position in candidates[np.sort(nearest)]]
