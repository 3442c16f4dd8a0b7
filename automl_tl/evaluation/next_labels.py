"""Which unlabeled images would teach a model the most: uncertain ones, unlike each other and unlike the labeled ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automl_tl.evaluation.reference_features import nearest, unit_length


def uncertainty(probabilities: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return 1 minus the margin between the two most probable classes, ``(N,)``: 0 is certain, 1 a tie.

    Args:
        probabilities: ``(N, C)``, calibrated.
    """
    best = -np.partition(-probabilities, 1, axis=1)[:, :2]
    return np.asarray(1 - (best[:, 0] - best[:, 1]), dtype=np.float32)


def order_by_value(
    features: NDArray[np.floating], probabilities: NDArray[np.floating], labeled: NDArray[np.floating], count: int
) -> list[int]:
    """Return the positions of the images to label next, the most valuable first. Deterministic.

    Each step takes the image with the largest product of uncertainty and cosine distance to the nearest image that is
    labeled or already taken.

    Args:
        features: ``(N, D)`` of the unlabeled images, the encoder's output.
        probabilities: ``(N, C)`` of the unlabeled images, calibrated.
        labeled: ``(M, D)``, features of the labeled images.
        count: number of images to return, at most N.
    """
    rows = unit_length(features)
    doubt = uncertainty(probabilities)
    distances = nearest(rows, labeled, 1)[1][:, 0]
    order: list[int] = []
    for _ in range(min(count, len(rows))):
        value = doubt * distances
        value[order] = -1
        taken = int(value.argmax())
        order.append(taken)
        np.minimum(distances, 1 - rows @ rows[taken], out=distances)
    return order
