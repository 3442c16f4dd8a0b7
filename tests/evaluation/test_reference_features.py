from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from automl_tl.errors import ModelError
from automl_tl.evaluation.reference_features import (
    MAX_REFERENCE_IMAGES,
    choose_reference_rows,
    make_reference_features,
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
