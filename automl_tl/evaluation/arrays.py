"""Array types of the evaluation, validation of probabilities, and unit-length features."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["FloatArray", "IntArray", "check_probabilities", "unit_length"]

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
IntArray: TypeAlias = npt.NDArray[np.integer[Any]]

SUM_TOLERANCE = 1e-3  # float16 probabilities of 1000 classes sum to 1 within this


def check_probabilities(labels: IntArray, probabilities: FloatArray) -> npt.NDArray[np.float64]:
    """Validate ``probabilities`` against ``labels`` and normalize their rows.

    Args:
        labels: ``(N,)``, class indices 0 to C-1.
        probabilities: ``(N, C)``, rows sum to 1 within 0.001.

    Returns:
        ``(N, C)`` float64, rows sum to exactly 1.

    Raises:
        ValueError: the shapes differ, a label is not a class index, or a row is not a probability distribution.
    """
    wide = np.asarray(probabilities, dtype=np.float64)
    if wide.ndim != 2 or labels.shape != wide.shape[:1]:
        raise ValueError(f"Labels {labels.shape} don't fit probabilities {wide.shape}; expected (N,) and (N, C).")
    num_classes = wide.shape[1]
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(f"Labels run from {labels.min()} to {labels.max()}, but there are {num_classes} classes.")
    sums = wide.sum(axis=1, keepdims=True)
    if not np.isfinite(wide).all() or (wide < 0).any() or (np.abs(sums - 1) > SUM_TOLERANCE).any():
        raise ValueError("Every row of probabilities must be finite, not negative, and sum to 1.")
    return np.asarray(wide / sums, dtype=np.float64)


def unit_length(features: FloatArray) -> npt.NDArray[np.float32]:
    """Scale the rows of ``features`` ``(N, D)`` to length 1, float32; rows of zeros stay zero."""
    wide = np.asarray(features, dtype=np.float32)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12), dtype=np.float32)
