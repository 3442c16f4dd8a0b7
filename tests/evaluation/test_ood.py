# ruff: noqa: TID253 - the reference that the numbers are compared with
from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.neighbors import NearestNeighbors

from automl_tl.evaluation.ood import nearest, ood_scores, ood_threshold

Matrix = npt.NDArray[np.float64]


def cloud(num_images: int, center: int, generator: np.random.Generator) -> Matrix:
    return np.asarray(generator.normal(size=(num_images, 32)) * 0.3 + 4 * np.eye(32)[center])


def test_nearest_equals_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    reference, features = generator.normal(size=(50, 8)), generator.normal(size=(20, 8))

    indices, distances = nearest(features, reference, 4)

    expected = NearestNeighbors(n_neighbors=4, metric="cosine").fit(reference).kneighbors(features)
    assert np.array_equal(indices, expected[1])
    assert distances == pytest.approx(expected[0], abs=1e-6)


def test_nearest_can_leave_self_out() -> None:
    reference = np.random.default_rng(0).normal(size=(30, 8))

    indices, _ = nearest(reference, reference, 3, leave_self_out=True)

    assert not (indices == np.arange(30)[:, None]).any()


def test_nearest_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = np.random.default_rng(0).normal(size=(40, 8))
    whole = nearest(reference, reference, 3, leave_self_out=True)

    monkeypatch.setattr("automl_tl.evaluation.ood.CHUNK", 7)

    assert np.array_equal(nearest(reference, reference, 3, leave_self_out=True)[0], whole[0])


def test_ood_threshold_has_stated_false_alarm_rate() -> None:
    generator = np.random.default_rng(0)
    reference = cloud(1000, 0, generator)

    threshold = ood_threshold(reference)

    own = ood_scores(cloud(2000, 0, generator), reference) > threshold
    other = ood_scores(cloud(200, 5, generator), reference) > threshold
    assert own.mean() == pytest.approx(0.05, abs=0.02)
    assert other.mean() == 1.0


def test_ood_threshold_is_infinite_for_few_images() -> None:
    assert ood_threshold(np.random.default_rng(0).normal(size=(10, 4))) == math.inf


def test_nearest_of_no_images_is_empty() -> None:
    indices, distances = nearest(np.zeros((0, 4)), np.ones((6, 4)), 3)

    assert (indices.shape, distances.shape) == ((0, 3), (0, 3))
