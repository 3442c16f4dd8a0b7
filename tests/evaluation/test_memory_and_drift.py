from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from automl_tl.errors import ModelError
from automl_tl.evaluation.drift import drift_between
from automl_tl.evaluation.memory import MAX_REMEMBERED, read_memory, remember, remembered, write_memory

CLASSES = ("ant", "bee")


def cloud(num_images: int, center: int, seed: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.random.default_rng(seed).normal(size=(num_images, 24)) * 0.4 + 3 * np.eye(24)[center])


def names(num_images: int) -> tuple[str, ...]:
    return tuple(f"{number}.jpg" for number in range(num_images))


def test_a_memory_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    said = np.array([[0.7, 0.3], [0.2, 0.8]], dtype=np.float32)
    memory = remember(cloud(60, 0, 0), np.arange(60) % 2, names(60), held_out=(np.array([0, 1]), said))

    found = read_memory(write_memory(tmp_path / "memory.safetensors", memory))

    assert found.paths == memory.paths
    assert found.threshold == memory.threshold
    assert np.array_equal(found.features, memory.features)
    assert np.array_equal(found.held_out_probabilities, said)


def test_the_same_memory_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file in files:
        write_memory(file, remember(cloud(60, 0, 0), np.arange(60) % 2, names(60)))

    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("content", [b"", b"no tensors in here", b"\x80\x04pickle"])
def test_a_file_that_is_no_memory_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "memory.safetensors"
    file.write_bytes(content)

    with pytest.raises(ModelError, match="can't be read as a model's memory"):
        read_memory(file)


def test_of_very_many_images_some_are_remembered() -> None:
    assert remembered(7, seed=0) == list(range(7))
    some = remembered(MAX_REMEMBERED + 50, seed=0)
    assert len(some) == len(set(some)) == MAX_REMEMBERED
    assert some == sorted(some) == remembered(MAX_REMEMBERED + 50, seed=0) != remembered(MAX_REMEMBERED + 50, seed=1)


def test_images_like_those_of_training_are_no_drift() -> None:
    memory = remember(cloud(400, 0, 0), np.arange(400) % 2, names(400))

    drift = drift_between(memory, cloud(200, 0, 1), np.arange(200) % 2, names(200), CLASSES)

    assert not drift.drifted
    assert drift.strangers < 0.12
    assert drift.p_value > 0.01
    assert "No drift can be seen" in drift.words


def test_images_of_another_kind_are_drift_with_examples() -> None:
    memory = remember(cloud(400, 0, 0), np.arange(400) % 2, names(400))
    mixed = np.concatenate([cloud(150, 0, 1), cloud(50, 7, 2)])

    drift = drift_between(memory, mixed, np.zeros(200, dtype=np.int64), names(200), CLASSES)

    assert drift.drifted
    assert all(int(one.path.removesuffix(".jpg")) >= 150 and one.strangeness > 1 for one in drift.examples)
    assert drift.mix == {"ant": (0.5, 1.0), "bee": (0.5, 0.0)}


def test_false_alarms_are_as_rare_as_said() -> None:
    chances = [alarm(seed) for seed in range(40)]

    assert sum(min(pair) <= 0.005 for pair in chances) <= 2
    for one_of_two in zip(*chances, strict=True):
        assert sum(chance <= 0.25 for chance in one_of_two) <= 18  # 10 are expected; 18 or more happen once in 300 times


def alarm(seed: int) -> tuple[float, float]:
    """Chances that are told of 80 images like the 120 of training."""
    memory = remember(cloud(120, 0, 2 * seed), np.arange(120) % 2, names(120))
    drift = drift_between(memory, cloud(80, 0, 2 * seed + 1), np.zeros(80, dtype=np.int64), names(80), CLASSES)
    return drift.strangers_p_value, drift.p_value
