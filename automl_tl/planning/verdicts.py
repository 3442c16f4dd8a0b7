"""What two arms' answers for the same images say about which is better: decided, tied, or not enough data."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["EQUAL_WITHIN", "Comparison", "compare", "shrunk"]

EQUAL_WITHIN: Final = 0.01  # of accuracy: closer than a point is the same for the user
Word = Literal["decided", "tied", "not enough data"]


@dataclass(frozen=True)
class Comparison:
    """Arm A against arm B on the same ``num_images`` images, per image and out of fold; fractions of accuracy."""

    difference: float  # accuracy of A minus accuracy of B
    standard_error: float
    word: Word
    num_needed: int  # images that would tell arms a point apart that disagree as often as these

    @property
    def is_better(self) -> bool:
        """Whether A is, as far as these images decide it."""
        return self.word == "decided" and self.difference > 0

    @property
    def is_worse(self) -> bool:
        """Whether A is, as far as these images decide it."""
        return self.word == "decided" and self.difference < 0

    @property
    def text(self) -> str:
        """For a plan."""
        points = f"{100 * self.difference:+.1f} ± {100 * self.standard_error:.1f} pp"
        if self.word == "not enough data":
            return f"{points}, undecided: about {self.num_needed} images would resolve 1 pp"
        return f"{points}, {self.word}"


def _brier(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Squared error ``(N,)`` of ``probabilities`` ``(N, C)`` against one-hot ``labels`` (Brier, 1950)."""
    errors = probabilities.astype(np.float64).copy()
    errors[np.arange(len(labels)), labels] -= 1
    result: NDArray[np.float64] = np.sum(errors**2, axis=1)
    return result


def compare(a: NDArray[np.floating], b: NDArray[np.floating], labels: NDArray[np.int64]) -> Comparison:
    """Compare probabilities ``(N, C)`` of two arms, paired per image.

    Decided: the mean difference of the Brier scores is beyond 1.96 standard errors. Tied: the 90% interval of the
    difference in accuracy lies within a point (two one-sided tests, Schuirmann 1987). Else the images are too few;
    ``num_needed`` has 80% power for a point at the share of images that the arms disagree on (Miettinen 1968, McNemar's test).
    """
    right_a, right_b = a.argmax(axis=1) == labels, b.argmax(axis=1) == labels
    steps = right_a.astype(np.float64) - right_b
    standard_error = _standard_error(steps)
    difference, losses = float(steps.mean()), _brier(b, labels) - _brier(a, labels)
    disagreeing = max(float(np.mean(right_a != right_b)), EQUAL_WITHIN)
    z = NormalDist().inv_cdf
    if abs(float(losses.mean())) > z(0.975) * _standard_error(losses):
        word: Word = "decided"
    elif abs(difference) + z(0.95) * standard_error < EQUAL_WITHIN:
        word = "tied"
    else:
        word = "not enough data"
    root = z(0.975) * sqrt(disagreeing) + z(0.8) * sqrt(disagreeing - EQUAL_WITHIN**2)
    return Comparison(difference, standard_error, word, ceil((root / EQUAL_WITHIN) ** 2))


def _standard_error(values: NDArray[np.float64]) -> float:
    """Of the mean; never 0, so that a few images that agree don't prove equality: at least as if one more differed."""
    n = len(values)
    return max(float(values.std()) / sqrt(n), 1 / (n + 1))


def shrunk(measured: float, standard_error: float, prior: float, prior_sd: float) -> tuple[float, float]:
    """Mean and standard deviation of a difference, from a measurement and a prior, weighed by their precision."""
    weights = 1 / standard_error**2, 1 / max(prior_sd, 1e-6) ** 2
    return (measured * weights[0] + prior * weights[1]) / sum(weights), sqrt(1 / sum(weights))
