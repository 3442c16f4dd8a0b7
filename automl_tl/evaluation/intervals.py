"""Confidence intervals: how far a metric measured on few images may be from its true value."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from automl_tl.values import Interval

Counts = NDArray[np.int64]


def wilson(correct: int, total: int) -> Interval:
    """Return the 95% Wilson score interval (1927) of a proportion, as recommended by Brown, Cai and DasGupta (2001).

    Args:
        correct: number of successes.
        total: number of trials; with 0 the interval is 0 to 1.

    Raises:
        ValueError: ``correct`` is not between 0 and ``total``.
    """
    if not 0 <= correct <= total:
        raise ValueError(f"{correct} of {total} is not a proportion.")
    if total == 0:
        return (0.0, 1.0)
    return _wilson(correct / total, total)


def clopper_pearson_upper(wrong: int, total: int, confidence: float = 0.95) -> float:
    """Return the one-sided exact upper bound on an error rate (Clopper and Pearson, 1934).

    Args:
        wrong: number of errors.
        total: number of images.
        confidence: probability, at least, that the true rate is not higher.
    """
    from scipy.stats import beta

    if wrong >= total:
        return 1.0
    return float(beta.ppf(confidence, wrong + 1, total - wrong))


def design_effect(contributions: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Return how many images count as one: the variance of a mean with whole groups drawn, by that with images drawn.

    At least 1, which it is without groups. Source: Kish, Survey Sampling, 1965; linearization of a ratio.

    Args:
        contributions: ``(N,)``, whose mean is the accuracy or another score.
        groups: ``(N,)``, numbers of groups.
    """
    residuals = contributions - contributions.mean()
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) == len(groups):
        return 1.0
    independent = float(residuals @ residuals)
    if independent == 0:  # no errors to learn it from: as if all images of a group had the same fate
        return float(sizes @ sizes) / len(groups)
    return max(1.0, float(np.square(np.bincount(group_of, residuals)).sum()) / independent)


def class_mean_intervals(confusion: NDArray[np.int64], *, draws: int = 1000) -> tuple[Interval, Interval]:
    """Return the 95% intervals of the balanced accuracy and of the macro-F1. Deterministic: the generator is seeded here.

    Wilson's interval with an effective number of images: that of a proportion with the variance of the metric under a bootstrap
    within classes (Efron 1979), at most the number with equal errors in all classes; see benchmarks/trust_intervals.py.

    Args:
        confusion: ``(C, C)``, counts; rows are true classes.
        draws: bootstrap samples.
    """
    # 1) The cap: effective number of images with equal errors in all classes.
    sizes = confusion.sum(axis=1)
    present = sizes > 0
    cap = float(present.sum() ** 2 / (1 / sizes[present]).sum())
    # 2) The metrics as measured, and on bootstrap samples.
    measured = confusion.diagonal()[None], confusion.sum(axis=0)[None]
    resampled = _bootstrap(confusion, draws)
    # 3) Wilson's interval at the effective number of images.
    balanced = _effective_wilson(_balanced(sizes, *measured), _balanced(sizes, *resampled), cap)
    return balanced, _effective_wilson(_macro_f1(sizes, *measured), _macro_f1(sizes, *resampled), cap)


def _bootstrap(confusion: NDArray[np.int64], draws: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return correct predictions and all predictions by class, both ``(draws, C)``; classes keep their number of images."""
    generator, num_classes = np.random.default_rng(0), len(confusion)
    correct, predicted = np.zeros((2, draws, num_classes), dtype=np.int64)
    for true, row in enumerate(confusion):
        (columns,) = np.nonzero(row)
        if len(columns):
            counts = generator.multinomial(row.sum(), row[columns] / row.sum(), size=draws)
            predicted[:, columns] += counts
            correct[:, true] = counts[:, columns == true].sum(axis=1)
    return correct, predicted


def _balanced(sizes: Counts, correct: Counts, predicted: Counts) -> NDArray[np.float64]:
    """Return the mean recall ``(draws,)`` of the classes that have images."""
    return np.asarray((correct[:, sizes > 0] / sizes[sizes > 0]).mean(axis=1))


def _macro_f1(sizes: Counts, correct: Counts, predicted: Counts) -> NDArray[np.float64]:
    """Return the mean F1 ``(draws,)`` of the classes that have images or were predicted."""
    total = sizes + predicted
    return np.asarray((2 * correct / np.maximum(total, 1)).sum(axis=1) / (total > 0).sum(axis=1))


def _effective_wilson(measured: NDArray[np.float64], resampled: NDArray[np.float64], cap: float) -> Interval:
    share, variance = float(measured[0]), float(resampled.var())
    return _wilson(share, min(cap, share * (1 - share) / variance) if variance > 0 else cap)


def _wilson(share: float, total: float) -> Interval:
    """Return Wilson's interval for ``total`` images, which need not be a whole number."""
    z = NormalDist().inv_cdf(0.975)
    spread = z * z / total
    center = (share + spread / 2) / (1 + spread)
    half = z * ((share * (1 - share) + spread / 4) / total) ** 0.5 / (1 + spread)
    return (0.0 if share == 0 else max(0.0, center - half), 1.0 if share == 1 else min(1.0, center + half))
