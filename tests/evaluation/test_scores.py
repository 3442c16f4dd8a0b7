"""Scores against scikit-learn, and their contributions against leaving images out."""

from __future__ import annotations

from math import log
from typing import get_args

import numpy as np
import pytest

from automl_tl.evaluation import metric_value, score
from automl_tl.values import Metric

LABELS = np.repeat([0, 1, 2], [60, 25, 15])
PROBABILITIES = np.random.default_rng(0).dirichlet((0.6, 0.6, 0.6), 100) / 2 + np.eye(3)[LABELS] / 2
PROBABILITIES[::7] = np.roll(PROBABILITIES[::7], 1, axis=1)
PREDICTED = PROBABILITIES.argmax(axis=1)


@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 2, 100)], ids=["alike", "weighted"])
def test_scores_are_scikit_learns(weights: np.ndarray | None) -> None:
    from sklearn import metrics

    expected = {
        "accuracy": metrics.accuracy_score(LABELS, PREDICTED, sample_weight=weights),
        "balanced_accuracy": metrics.balanced_accuracy_score(LABELS, PREDICTED, sample_weight=weights),
        "macro_f1": metrics.f1_score(LABELS, PREDICTED, average="macro", sample_weight=weights),
        "log_loss": metrics.log_loss(LABELS, PROBABILITIES, sample_weight=weights),
    }
    metric: Metric
    for metric in get_args(Metric):
        assert metric_value(metric, score(metric, LABELS, PROBABILITIES, weights).value) == pytest.approx(expected[metric])


@pytest.mark.parametrize("metric", get_args(Metric))
def test_contributions_predict_the_score_without_an_image(metric: Metric) -> None:
    """The jackknife: without image i, the score changes by -(contribution - score) / (n - 1), up to second order."""
    full = score(metric, LABELS, PROBABILITIES)
    assert full.contributions.mean() == pytest.approx(full.value)
    for left_out in (0, 7, 61, 99):
        kept = np.delete(np.arange(100), left_out)
        without = score(metric, LABELS[kept], PROBABILITIES[kept]).value
        assert without - full.value == pytest.approx(-(full.contributions[left_out] - full.value) / 99, abs=1.5e-3)


def test_num_effective_is_smaller_with_rare_classes() -> None:
    assert score("accuracy", LABELS, PROBABILITIES).num_effective == 100
    assert score("balanced_accuracy", LABELS, PROBABILITIES).num_effective < 80


def test_log_loss_of_a_perfect_model_is_zero() -> None:
    perfect = np.eye(3)[LABELS]
    assert metric_value("log_loss", score("log_loss", LABELS, perfect).value) == pytest.approx(-log(1), abs=1e-9)
