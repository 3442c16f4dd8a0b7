"""Which images to label next."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from automl_tl.evaluation.next_labels import order_by_value, uncertainty

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def test_uncertainty_is_one_for_a_tie_and_zero_for_certainty() -> None:
    assert_allclose(uncertainty(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.6, 0.1, 0.3]])), [1.0, 0.0, 0.7], atol=1e-7)


def test_order_by_value_prefers_the_uncertain_of_equally_distant_images() -> None:
    features, probabilities = np.array([NORTH, NORTH]), np.array([[0.9, 0.1], [0.6, 0.4]])

    assert order_by_value(features, probabilities, np.array([EAST]), 1) == [1]


def test_order_by_value_prefers_the_image_unlike_the_labeled_ones() -> None:
    features, probabilities = np.array([NORTH, WEST]), np.full((2, 2), 0.5)

    assert order_by_value(features, probabilities, np.array([EAST]), 1) == [1]


def test_order_by_value_lists_copies_last() -> None:
    features, probabilities = np.array([WEST, WEST, NORTH]), np.array([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1]])

    assert order_by_value(features, probabilities, np.array([EAST]), 3) == [0, 2, 1]


@pytest.mark.parametrize("num", [1, 5, 40])
def test_order_by_value_returns_each_image_at_most_once(num: int) -> None:
    rng = np.random.default_rng(0)
    features, probabilities = rng.normal(size=(20, 8)), rng.dirichlet(np.ones(3), size=20)

    order = order_by_value(features, probabilities, rng.normal(size=(5, 8)), num)

    assert len(order) == len(set(order)) == min(num, 20)
