"""Intervals: how far a number measured on few images may be from the truth."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from automl_tl.evaluation.arrays import FloatArray, IntArray
from automl_tl.values import Interval

__all__ = ["bootstrap", "clopper_pearson_upper", "wilson"]


def wilson(correct: int, total: int, confidence: float = 0.95) -> Interval:
    """Interval for a proportion of which ``correct`` of ``total`` were seen, each 0 to 1.

    Wilson's score interval (1927): covers about ``confidence`` on average, never leaves 0 to 1, and stays useful at
    0 and at ``total``. Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion" (2001) recommend it.
    """
    if not 0 <= correct <= total:
        raise ValueError(f"{correct} of {total} is no proportion.")
    if total == 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = correct / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z * ((share * (1 - share) + spread / 4) / total) ** 0.5 / (1 + spread)
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == total else min(1.0, centre + half)
    return (low, high)


def clopper_pearson_upper(wrong: int, total: int, confidence: float = 0.95) -> float:
    """Upper bound on an error rate of which ``wrong`` of ``total`` were seen.

    One-sided and exact (Clopper and Pearson, 1934): the true rate exceeds it with probability at most
    ``1 - confidence``, whatever the rate is.
    """
    from scipy.stats import beta

    if wrong >= total:
        return 1.0
    return float(beta.ppf(confidence, wrong + 1, total - wrong))


def bootstrap(
    labels: IntArray,
    predicted: IntArray,
    score: Callable[[FloatArray], float],
    *,
    num_classes: int,
    draws: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of ``score(confusion)`` over images drawn again with replacement (Efron, 1979).

    Args:
        labels: ``(N,)``, true classes.
        predicted: ``(N,)``, predicted classes.
        score: from a confusion matrix ``(C, C)``, row true, column predicted, to a number; NaN draws are left out.
        num_classes: C.
        draws: how often images are drawn; deterministic, the generator is seeded here.
        confidence: share of draws inside.
    """
    cells, counts = np.unique(labels * num_classes + predicted, return_counts=True)
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(counts.sum(), counts / counts.sum(), size=draws)
    scores = []
    for row in drawn:
        confusion = np.zeros(num_classes * num_classes)
        confusion[cells] = row
        scores.append(score(confusion.reshape(num_classes, num_classes)))
    tail = 100 * (1 - confidence) / 2
    low, high = np.nanpercentile(scores, [tail, 100 - tail])
    return (float(low), float(high))
