"""Which images to label next."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from automl_tl.evaluation.next_labels import choose_diverse_uncertain, uncertainty


def test_uncertainty_is_one_for_a_tie_and_zero_for_certainty() -> None:
    assert_allclose(uncertainty(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.6, 0.1, 0.3]])), [1.0, 0.0, 0.7], atol=1e-7)


def test_choose_diverse_uncertain_takes_one_image_of_each_kind_rather_than_the_most_uncertain_kind() -> None:
    kinds = np.eye(3).repeat(4, axis=0)
    features = kinds + 0.01 * np.random.default_rng(0).normal(size=kinds.shape)
    doubt = np.linspace(0.5, 0.6, 12)  # the last kind is the least uncertain

    chosen = choose_diverse_uncertain(features, np.stack([doubt, 1 - doubt], axis=1), 3)

    assert {position // 4 for position in chosen} == {0, 1, 2}
    assert chosen == sorted(chosen)  # the most uncertain first


def test_choose_diverse_uncertain_ignores_certain_images() -> None:
    features = np.random.default_rng(0).normal(size=(30, 4))
    probabilities = np.array([[1.0, 0.0]] * 20 + [[0.5, 0.5]] * 10)

    assert all(position >= 20 for position in choose_diverse_uncertain(features, probabilities, 2))


@pytest.mark.parametrize("num", [1, 7, 20, 40])
def test_choose_diverse_uncertain_returns_each_image_at_most_once(num: int) -> None:
    rng = np.random.default_rng(0)
    chosen = choose_diverse_uncertain(rng.normal(size=(20, 8)), rng.dirichlet(np.ones(3), size=20), num)

    assert len(chosen) == len(set(chosen)) == min(num, 20)
