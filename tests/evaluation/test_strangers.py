# ruff: noqa: TID253 - the reference that the numbers are compared with
from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.neighbors import NearestNeighbors

from automl_tl.evaluation.strangers import nearest, stranger_scores, stranger_threshold

Matrix = npt.NDArray[np.float64]


def cloud(num_images: int, center: int, generator: np.random.Generator) -> Matrix:
    return np.asarray(generator.normal(size=(num_images, 32)) * 0.3 + 4 * np.eye(32)[center])


def test_neighbors_and_distances_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    memory, features = generator.normal(size=(50, 8)), generator.normal(size=(20, 8))

    indices, distances = nearest(features, memory, 4)

    reference = NearestNeighbors(n_neighbors=4, metric="cosine").fit(memory).kneighbors(features)
    assert np.array_equal(indices, reference[1])
    assert distances == pytest.approx(reference[0], abs=1e-6)


def test_an_image_is_no_neighbor_of_its_own() -> None:
    memory = np.random.default_rng(0).normal(size=(30, 8))

    indices, _ = nearest(memory, memory, 3, leave_self_out=True)

    assert not (indices == np.arange(30)[:, None]).any()


def test_many_rows_in_chunks_give_what_one_chunk_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = np.random.default_rng(0).normal(size=(40, 8))
    whole = nearest(memory, memory, 3, leave_self_out=True)

    monkeypatch.setattr("automl_tl.evaluation.strangers.CHUNK", 7)

    assert np.array_equal(nearest(memory, memory, 3, leave_self_out=True)[0], whole[0])


def test_about_the_stated_share_of_own_images_is_refused_and_strangers_almost_all() -> None:
    generator = np.random.default_rng(0)
    memory = cloud(1000, 0, generator)

    threshold = stranger_threshold(memory)

    own = stranger_scores(cloud(2000, 0, generator), memory) > threshold
    strange = stranger_scores(cloud(200, 5, generator), memory) > threshold
    assert own.mean() == pytest.approx(0.05, abs=0.02)
    assert strange.mean() == 1.0


def test_too_few_training_images_call_nobody_a_stranger() -> None:
    assert stranger_threshold(np.random.default_rng(0).normal(size=(10, 4))) == math.inf


def test_no_image_gives_no_score() -> None:
    indices, distances = nearest(np.zeros((0, 4)), np.ones((6, 4)), 3)

    assert (indices.shape, distances.shape) == ((0, 3), (0, 3))
