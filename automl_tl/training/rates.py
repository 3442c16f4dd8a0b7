"""A learning rate from a short range test (Smith, arXiv 1506.01186), where a recipe leaves it open."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Final

import numpy as np

__all__ = ["find_rate"]

LOWEST, HIGHEST, NUM_STEPS = 1e-5, 1.0, 30
SMOOTHING: Final = 0.7
SAFETY: Final = 10.0  # the rate of the lowest loss is already too much; fastai takes a tenth of it
RUNAWAY: Final = 4.0  # times the lowest loss: the test is over


def find_rate(step: Callable[[float], float]) -> float:
    """A tenth of the rate at which the smoothed loss was lowest.

    Args:
        step: makes one training step at the given rate and gives its loss; the caller puts the weights back afterwards.
    """
    best_rate, best_loss, smooth = LOWEST * SAFETY, float("inf"), None
    for rate in np.geomspace(LOWEST, HIGHEST, NUM_STEPS):
        loss = step(float(rate))
        if not isfinite(loss):
            break
        smooth = loss if smooth is None else SMOOTHING * smooth + (1 - SMOOTHING) * loss
        if smooth < best_loss:
            best_rate, best_loss = float(rate), smooth
        elif smooth > RUNAWAY * best_loss:
            break
    return max(best_rate / SAFETY, LOWEST)
