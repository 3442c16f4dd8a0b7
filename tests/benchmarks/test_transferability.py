"""Transferability scores, against scikit-learn and on clusters of known distance."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.transferability import h_score, log_me, neighbor_agreement


def clusters(distance: float, per_class: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return features ``(N, 16)`` of three classes at ``distance``, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), per_class)
    return rng.normal(size=(len(labels), 16)) + distance * np.eye(16)[labels], labels


@pytest.mark.parametrize("score", [neighbor_agreement, h_score, log_me], ids=lambda score: score.__name__)
def test_score_rises_with_the_distance_of_the_classes(score: object) -> None:
    assert callable(score)
    values = [score(*clusters(distance)) for distance in (0.0, 2.0, 8.0)]

    assert values == sorted(values)
    assert values[0] < values[-1]


def test_log_me_equals_the_evidence_of_bayesian_ridge() -> None:
    """Held against scikit-learn's own evidence maximization, on both columns of two classes."""
    from sklearn.linear_model import BayesianRidge

    features, labels = clusters(1.0)
    is_first = (labels == 0).astype(np.int64)
    model = BayesianRidge(fit_intercept=False, compute_score=True, alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, max_iter=500)
    evidences = [model.fit(features, column).scores_[-1] / len(column) for column in (is_first, 1 - is_first)]

    assert log_me(features, is_first) == pytest.approx(np.mean(evidences), abs=0.02)
