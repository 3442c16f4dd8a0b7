# ruff: noqa: TID253 - the reference that the numbers are compared with
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.neighbors import NearestNeighbors

from automl_tl.errors import ModelError
from automl_tl.evaluation.reference_features import (
    MAX_REFERENCE_IMAGES,
    choose_reference_rows,
    make_reference_features,
    nearest,
    ood_scores,
    ood_threshold,
    read_reference_features,
    write_reference_features,
)


def cloud(num_images: int, center: int, seed: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.random.default_rng(seed).normal(size=(num_images, 24)) * 0.4 + 3 * np.eye(24)[center])


def names(num_images: int) -> tuple[str, ...]:
    return tuple(f"{number}.jpg" for number in range(num_images))


def test_reference_features_survive_writing_and_reading(tmp_path: Path) -> None:
    probabilities = np.array([[0.7, 0.3], [0.2, 0.8]], dtype=np.float32)
    reference = make_reference_features(
        cloud(60, 0, 0), np.arange(60) % 2, names(60), held_out=(np.array([0, 1]), probabilities)
    )

    loaded = read_reference_features(write_reference_features(tmp_path / "reference.safetensors", reference))

    assert loaded.paths == reference.paths
    assert loaded.threshold == reference.threshold
    assert np.array_equal(loaded.features, reference.features)
    assert np.array_equal(loaded.held_out_probabilities, probabilities)


def test_write_reference_features_is_deterministic(tmp_path: Path) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file in files:
        write_reference_features(file, make_reference_features(cloud(60, 0, 0), np.arange(60) % 2, names(60)))

    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("content", [b"", b"no tensors in here", b"\x80\x04pickle"])
def test_read_reference_features_rejects_other_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "reference.safetensors"
    file.write_bytes(content)

    with pytest.raises(ModelError, match="can't be read as reference features"):
        read_reference_features(file)


def test_choose_reference_rows_samples_many_images() -> None:
    assert choose_reference_rows(7, seed=0) == list(range(7))
    chosen = choose_reference_rows(MAX_REFERENCE_IMAGES + 50, seed=0)
    assert len(chosen) == len(set(chosen)) == MAX_REFERENCE_IMAGES
    assert (
        chosen
        == sorted(chosen)
        == choose_reference_rows(MAX_REFERENCE_IMAGES + 50, seed=0)
        != choose_reference_rows(MAX_REFERENCE_IMAGES + 50, seed=1)
    )


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

    monkeypatch.setattr("automl_tl.evaluation.reference_features.CHUNK", 7)

    assert np.array_equal(nearest(reference, reference, 3, leave_self_out=True)[0], whole[0])


def test_ood_threshold_has_stated_false_alarm_rate() -> None:
    reference = cloud(1000, 0, 0)

    threshold = ood_threshold(reference)

    own = ood_scores(cloud(2000, 0, 1), reference) > threshold
    other = ood_scores(cloud(200, 5, 2), reference) > threshold
    assert own.mean() == pytest.approx(0.05, abs=0.02)
    assert other.mean() == 1.0


def test_ood_threshold_is_infinite_for_few_images() -> None:
    assert ood_threshold(np.random.default_rng(0).normal(size=(10, 4))) == math.inf


def test_nearest_of_no_images_is_empty() -> None:
    indices, distances = nearest(np.zeros((0, 4)), np.ones((6, 4)), 3)

    assert (indices.shape, distances.shape) == ((0, 3), (0, 3))
