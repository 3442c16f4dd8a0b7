"""Learning rate over a phase, as a factor on each group's rate. Pure functions of the share of steps done."""

from __future__ import annotations

from math import cos, pi
from typing import Final

from automl_tl.values import Phase

__all__ = ["rate_factor"]

# One-cycle as in fastai: up over 30% of the steps from 1/25, down to 1/100000 (Smith, arXiv 1803.09820).
ONE_CYCLE_UP: Final = 0.3
ONE_CYCLE_START: Final = 1 / 25
ONE_CYCLE_END: Final = 1e-5


def rate_factor(phase: Phase, done: float) -> float:
    """Factor in 0 to 1 when ``done``, 0 to 1, of the phase's steps are behind."""
    if phase.schedule == "one_cycle":
        return _one_cycle(done)
    if done < phase.warmup_fraction:
        return max(done / phase.warmup_fraction, 1e-3)
    rest = (done - phase.warmup_fraction) / max(1 - phase.warmup_fraction, 1e-9)
    if phase.schedule == "cosine":
        return _cosine(1.0, 0.0, rest)
    return 1 - rest if phase.schedule == "linear" else 1.0


def _one_cycle(done: float) -> float:
    if done < ONE_CYCLE_UP:
        return _cosine(ONE_CYCLE_START, 1.0, done / ONE_CYCLE_UP)
    return _cosine(1.0, ONE_CYCLE_END, (done - ONE_CYCLE_UP) / (1 - ONE_CYCLE_UP))


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + cos(pi * min(done, 1.0))) / 2
