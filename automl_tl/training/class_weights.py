"""Class weights: how much an image of each class counts in the losses that calibrate and compare models.

Weights do not change what solvers and the training loop minimize: they shift the logits of the finished model (decision 67).
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from automl_tl.errors import PlanError
from automl_tl.evaluation import balanced_weights, imbalanced_log_prior
from automl_tl.values import Constraints, Metric

BY_METRIC: Final[dict[Metric, Literal["balanced", "sqrt", "none"]]] = {  # decision 67
    "accuracy": "none",
    "balanced_accuracy": "balanced",
    "macro_f1": "sqrt",
    "log_loss": "none",
}


def class_weights(constraints: Constraints, classes: Sequence[str], labels: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Return the weights ``(C,)``, on average 1 over the images; ``None`` if all images count alike.

    Args:
        constraints: weights, or the metric that they follow from.
        classes: names of the C classes.
        labels: ``(N,)``, of the images to learn from.

    Raises:
        PlanError: a weight is of a class that does not exist.
    """
    requested = weights_of(constraints)
    if requested == "none":
        return None
    weights = np.ones(len(classes))
    if isinstance(requested, str):
        balanced = balanced_weights(labels)
        weights[: len(balanced)] = balanced if requested == "balanced" else np.sqrt(balanced)
    else:
        _check_names(requested, classes)
        weights = np.array([requested.get(name, 1.0) for name in classes])
    return np.asarray(weights / weights[labels].mean())


def adjustment_direction(
    weights: NDArray[np.float64] | None, labels: NDArray[np.int64], num_classes: int
) -> NDArray[np.float64] | None:
    """Return what a share of is subtracted from the logits ``(C,)``: with weights, minus their logarithms; else the log-prior.

    Args:
        weights: ``(C,)``; ``None``: only strongly imbalanced classes are adjusted (decision 50).
        labels: ``(N,)``, of the images to learn from.
        num_classes: ``C``.
    """
    return imbalanced_log_prior(labels, num_classes) if weights is None else -np.log(weights)


def weights_of(constraints: Constraints) -> Literal["balanced", "sqrt", "none"] | dict[str, float]:
    """Return the requested class weights, or those that follow from the metric."""
    return constraints.class_weights or BY_METRIC[constraints.metric or "accuracy"]


def _check_names(weights: dict[str, float], classes: Sequence[str]) -> None:
    if unknown := sorted(weights.keys() - set(classes)):
        near = get_close_matches(unknown[0], classes, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"The classes are {', '.join(map(repr, classes[:20]))}."
        raise PlanError(f"Class weights name unknown classes: {', '.join(map(repr, unknown))}. {hint}")
