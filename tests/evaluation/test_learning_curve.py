from __future__ import annotations

import numpy as np
import numpy.typing as npt

from automl_tl.evaluation.learning_curve import learning_curve

CLASSES = ("ant", "bee", "rust")


def features(num_images: int, seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    labels = np.arange(num_images) % 3
    return generator.normal(size=(num_images, 60)) + 1.4 * np.eye(3, 60)[labels], labels


def test_learning_curve_interval_contains_true_gain() -> None:
    curve = learning_curve(*features(150, 0), CLASSES)
    longer = learning_curve(*features(300, 0), CLASSES)

    assert curve is not None
    assert longer is not None
    assert curve.points[0].accuracy < curve.points[-1].accuracy
    assert curve.interval[0] - 0.03 <= longer.points[-1].accuracy - curve.points[-1].accuracy <= curve.interval[1] + 0.03
    assert "150 more images" in curve.words


def test_learning_curve_gain_lies_in_its_interval() -> None:
    curve = learning_curve(*features(120, 1), CLASSES)

    assert curve is not None
    assert 0 <= curve.interval[0] <= curve.gain <= curve.interval[1]
    assert all(gain.gain >= 0 and gain.label in CLASSES for gain in curve.by_class)


def test_learning_curve_is_deterministic() -> None:
    assert learning_curve(*features(90, 2), CLASSES) == learning_curve(*features(90, 2), CLASSES)


def test_learning_curve_needs_enough_images() -> None:
    assert learning_curve(*features(21, 0), CLASSES) is None
