"""Intervals: how far a number measured on few images may be from the truth."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from automl_tl.evaluation.arrays import FloatArray, IntArray
from automl_tl.values import Interval

__all__ = ["class_mean_intervals", "clopper_pearson_upper", "wilson"]


def wilson(correct: int, total: int, confidence: float = 0.95) -> Interval:
    """Interval for a proportion of which ``correct`` of ``total`` were seen, each 0 to 1.

    Wilson's score interval (1927): covers about ``confidence`` on average, never leaves 0 to 1, and stays useful at
    0 and at ``total``. Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion" (2001) recommend it.
    """
    if not 0 <= correct <= total:
        raise ValueError(f"{correct} of {total} is no proportion.")
    if total == 0:
        return (0.0, 1.0)
    return _wilson(correct / total, total, confidence)


def clopper_pearson_upper(wrong: int, total: int, confidence: float = 0.95) -> float:
    """Upper bound on an error rate of which ``wrong`` of ``total`` were seen.

    One-sided and exact (Clopper and Pearson, 1934): the true rate exceeds it with probability at most
    ``1 - confidence``, whatever the rate is.
    """
    from scipy.stats import beta

    if wrong >= total:
        return 1.0
    return float(beta.ppf(confidence, wrong + 1, total - wrong))


def class_mean_intervals(confusion: npt.NDArray[np.int64], *, draws: int = 1000) -> tuple[Interval, Interval]:
    """95% intervals of the balanced accuracy and of the macro-F1 that ``confusion`` ``(C, C)`` gives, row true.

    Wilson's interval with the effective number of images: that of a proportion which varies as much as the figure does when
    each class's images are drawn again with replacement (bootstrap, Efron 1979), and never more than it would be with equal
    errors in all classes. Percentiles of the draws themselves cover less: 77 to 95% against 93 to 98%
    (benchmarks/trust_intervals.py). Deterministic, the generator is seeded here.
    """
    sizes = confusion.sum(axis=1)
    present = sizes > 0
    most = float(present.sum() ** 2 / (1 / sizes[present]).sum())
    exact = confusion.diagonal()[None], confusion.sum(axis=0)[None]
    drawn = _drawn_again(confusion, draws)
    return _effective_wilson(_balanced(sizes, *exact), _balanced(sizes, *drawn), most), _effective_wilson(
        _macro_f1(sizes, *exact), _macro_f1(sizes, *drawn), most
    )


def _drawn_again(confusion: npt.NDArray[np.int64], draws: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Right answers and predictions of each class, both ``(draws, C)``; classes keep their number of images."""
    generator, num_classes = np.random.default_rng(0), len(confusion)
    right, said = np.zeros((2, draws, num_classes), dtype=np.int64)
    for true, row in enumerate(confusion):
        (columns,) = np.nonzero(row)
        if len(columns):
            counts = generator.multinomial(row.sum(), row[columns] / row.sum(), size=draws)
            said[:, columns] += counts
            right[:, true] = counts[:, columns == true].sum(axis=1)
    return right, said


def _balanced(sizes: IntArray, right: IntArray, said: IntArray) -> FloatArray:
    """Mean recall of the classes that have images, ``(draws,)``."""
    return np.asarray((right[:, sizes > 0] / sizes[sizes > 0]).mean(axis=1))


def _macro_f1(sizes: IntArray, right: IntArray, said: IntArray) -> FloatArray:
    """Mean F1 of the classes that have images or were predicted, ``(draws,)``."""
    total = sizes + said
    return np.asarray((2 * right / np.maximum(total, 1)).sum(axis=1) / (total > 0).sum(axis=1))


def _effective_wilson(figure: FloatArray, drawn: FloatArray, most: float) -> Interval:
    share, variance = float(figure[0]), float(drawn.var())
    return _wilson(share, min(most, share * (1 - share) / variance) if variance > 0 else most, 0.95)


def _wilson(share: float, total: float, confidence: float) -> Interval:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    spread = z * z / total
    center = (share + spread / 2) / (1 + spread)
    half = z * ((share * (1 - share) + spread / 4) / total) ** 0.5 / (1 + spread)
    return (0.0 if share == 0 else max(0.0, center - half), 1.0 if share == 1 else min(1.0, center + half))
