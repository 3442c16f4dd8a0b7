"""Scores: a metric as a number from 0 to 1 that is higher for better models, and what each image contributes to it.

Planning compares models by scores. A log loss becomes ``exp(-log_loss)``, the geometric mean of the probabilities of the true
classes; every other metric is its own score. The contributions make comparisons paired, whatever the metric.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from automl_tl.evaluation.calibration import MIN_PROBABILITY
from automl_tl.values import Metric


@dataclass(frozen=True)
class Score:
    """A score, and the contributions ``(N,)`` of the images, whose mean it is: to first order, the influence of each image."""

    value: float
    contributions: NDArray[np.float64]
    num_effective: float  # images of an accuracy of this value that would be as uncertain


def score(
    metric: Metric,
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    weights: NDArray[np.float64] | None = None,
) -> Score:
    """Return the score of ``probabilities``. Source of the contributions: the delta method (Hampel 1974).

    Args:
        metric: to compute.
        labels: ``(N,)``, indices of the true classes.
        probabilities: ``(N, C)``.
        weights: ``(N,)``, images that each image stands for; ``None``: 1.
    """
    num_images, num_classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    is_correct = (predicted == labels).astype(np.float64)
    if metric == "accuracy":
        return Score(float(np.average(is_correct, weights=weights)), is_correct, num_images)
    weights = np.ones(num_images) if weights is None else weights / weights.mean()
    if metric == "log_loss":
        losses = -np.log(np.maximum(probabilities[np.arange(num_images), labels], MIN_PROBABILITY))
        value = exp(-float(np.average(losses, weights=weights)))
        contributions = value + weights * value * (-losses - log(value))
        return Score(value, contributions, _num_effective(value, contributions, num_images))
    # 1) Balanced accuracy and macro-F1 are means over classes of ratios: of found images by size, or 2 TP by size + predicted.
    factor = 2 if metric == "macro_f1" else 1
    found, sizes = (np.bincount(labels, counts, num_classes) for counts in (weights * is_correct, weights))
    totals = sizes + np.bincount(predicted, weights, num_classes) * (factor - 1)
    present = totals > 0
    totals = np.where(present, totals, 1.0)
    ratios = factor * found / totals
    value = float(ratios[present].mean())
    # 2) An image changes the ratio of its class by (numerator - ratio) / total, that of the predicted one by -ratio / total.
    scale = num_images / (totals * present.sum())
    gains = scale[labels] * (factor * is_correct - ratios[labels])
    losses = scale[predicted] * ratios[predicted] * (factor - 1)
    contributions = value + weights * (gains - losses)
    # 3) Without errors to learn the variance from, the sizes of the classes limit it (as in ``class_mean_intervals``).
    counts = np.bincount(labels)
    limit = (counts > 0).sum() ** 2 / (1 / counts[counts > 0]).sum()
    return Score(value, contributions, _num_effective(value, contributions, limit))


def _num_effective(value: float, contributions: NDArray[np.float64], limit: float) -> float:
    variance = float(contributions.var())
    return min(limit, len(contributions) * value * (1 - value) / variance) if variance > 0 and 0 < value < 1 else limit


def losses(metric: Metric, labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return a proper loss ``(N,)`` per image, which tells models apart with fewer images than the metric does.

    It is the Brier score (1950); with all classes of equal weight for the means over classes; the log loss for itself.

    Args:
        metric: that is asked for.
        labels: ``(N,)``, indices of the true classes.
        probabilities: ``(N, C)``.
    """
    rows = np.arange(len(labels))
    if metric == "log_loss":
        return np.asarray(-np.log(np.maximum(probabilities[rows, labels], MIN_PROBABILITY)))
    errors = probabilities.astype(np.float64).copy()
    errors[rows, labels] -= 1
    brier = np.asarray(np.sum(errors**2, axis=1))
    return brier if metric == "accuracy" else brier * balanced_weights(labels)[labels]


def balanced_weights(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return weights ``(C,)`` that give all classes of ``labels`` the same sum, on average 1 per image (as scikit-learn)."""
    counts = np.bincount(labels)
    return np.asarray(len(labels) / np.maximum(counts, 1) / (counts > 0).sum())


def metric_value(metric: Metric, value: float) -> float:
    """Return the value of the metric whose score is ``value``.

    Args:
        metric: its name.
        value: score.
    """
    return -log(max(value, MIN_PROBABILITY)) if metric == "log_loss" else value
