"""Paired comparisons on predictions whose result is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_tl.planning.comparison import compare, shrink


def predictions(right: np.ndarray, labels: np.ndarray, confidence: float = 0.9) -> np.ndarray:
    """Return probabilities ``(N, 2)`` that are right where ``right`` says so."""
    predicted = np.where(right, labels, 1 - labels)
    return np.where(np.arange(2)[None] == predicted[:, None], confidence, 1 - confidence)


def test_compare_decides_large_differences_and_ties_equal_predictions() -> None:
    labels = np.arange(400) % 2
    good, bad = predictions(labels >= 0, labels), predictions(np.arange(400) % 4 > 0, labels)

    assert compare(good, bad, labels).result == "decided"
    assert compare(good, bad, labels).difference == pytest.approx(0.25)
    assert compare(good, good, labels).result == "tied"


def test_compare_says_how_many_images_would_decide() -> None:
    labels = np.arange(20) % 2
    comparison = compare(predictions(np.arange(20) != 3, labels), predictions(np.arange(20) != 5, labels), labels)

    assert comparison.result == "not enough data"
    assert comparison.num_needed > 1000


def test_compare_needs_as_many_images_as_mcnemars_formula() -> None:
    """Models that disagree on 10% of images: two points need 1958 by McNemar's formula, a point four times as many."""
    labels = np.zeros(1000, dtype=np.int64)
    first, second = np.ones(1000, dtype=bool), np.ones(1000, dtype=bool)
    first[:50], second[50:100] = False, False

    assert compare(predictions(first, labels), predictions(second, labels), labels).num_needed == pytest.approx(
        4 * 1958, rel=0.01
    )


@given(st.floats(-1, 1), st.floats(0.001, 1), st.floats(-1, 1), st.floats(0.001, 1))
def test_shrink_stays_between_measurement_and_prior(a: float, a_sd: float, b: float, b_sd: float) -> None:
    mean, sd = shrink(a, a_sd, b, b_sd)

    assert min(a, b) - 1e-9 <= mean <= max(a, b) + 1e-9
    assert sd <= min(a_sd, b_sd) + 1e-9
