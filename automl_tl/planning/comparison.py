"""Paired comparison of two models on the same images: decided, tied, or not enough data."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from automl_tl.evaluation import losses, score
from automl_tl.values import Metric

Result = Literal["decided", "tied", "not enough data"]
EQUAL_WITHIN: Final = 0.01  # accuracies within 1 pp are the same for the user


@dataclass(frozen=True)
class Comparison:
    """A against B on the same images, each predicted by a model that did not learn from it."""

    difference: float  # score of A minus score of B: of accuracies, unless another metric is asked for
    standard_error: float
    result: Result
    num_needed: int  # images that would resolve 1 pp at this rate of disagreement

    @property
    def text(self) -> str:
        """One line for a plan."""
        points = f"{100 * self.difference:+.1f} ± {100 * self.standard_error:.1f} pp"
        if self.result == "not enough data":
            return f"{points}, undecided: about {self.num_needed} images would resolve 1 pp"
        return f"{points}, {self.result}"


def compare(
    a: NDArray[np.floating], b: NDArray[np.floating], labels: NDArray[np.int64], metric: Metric = "accuracy"
) -> Comparison:
    """Return how two models differ, paired per image.

    Source: Brier 1950 (scores); Schuirmann 1987 (two one-sided tests); Miettinen 1968 (sample size of McNemar's test).

    Args:
        a: ``(N, C)`` probabilities of the first model.
        b: ``(N, C)`` probabilities of the second model.
        labels: ``(N,)`` class indices.
        metric: that is compared.
    """
    steps = score(metric, labels, a).contributions - score(metric, labels, b).contributions
    difference, standard_error = float(steps.mean()), _standard_error(steps)
    gains = losses(metric, labels, b) - losses(metric, labels, a)
    z = NormalDist().inv_cdf
    result: Result = "not enough data"
    # 1) Decided: the mean difference of the losses (Brier scores) is beyond 1.96 standard errors.
    if abs(float(gains.mean())) > z(0.975) * _standard_error(gains):
        result = "decided"
    # 2) Tied: the 90% interval of the difference lies within 1 pp.
    elif abs(difference) + z(0.95) * standard_error < EQUAL_WITHIN:
        result = "tied"
    # 3) Images needed for 80% power at 1 pp, at the observed share of images that the models disagree on.
    disagreement = max(float(np.mean(steps**2)), EQUAL_WITHIN)
    root = z(0.975) * sqrt(disagreement) + z(0.8) * sqrt(disagreement - EQUAL_WITHIN**2)
    return Comparison(difference, standard_error, result, ceil((root / EQUAL_WITHIN) ** 2))


def _standard_error(values: NDArray[np.float64]) -> float:
    """Return the standard error of the mean, at least as if one more image differed: few equal values prove no equality."""
    n = len(values)
    return max(float(values.std()) / sqrt(n), 1 / (n + 1))


def shrink(measured: float, standard_error: float, prior: float, prior_sd: float) -> tuple[float, float]:
    """Return the posterior mean and standard deviation of a difference (normal prior, normal error).

    Args:
        measured: difference.
        standard_error: of ``measured``.
        prior: expected difference.
        prior_sd: standard deviation of ``prior``.
    """
    precision, prior_precision = 1 / standard_error**2, 1 / max(prior_sd, 1e-6) ** 2
    total = precision + prior_precision
    return (measured * precision + prior * prior_precision) / total, sqrt(1 / total)
