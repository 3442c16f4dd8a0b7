from __future__ import annotations

import numpy as np
import numpy.typing as npt

from automl_tl.evaluation.drift import estimate_drift
from automl_tl.evaluation.reference_features import make_reference_features

CLASSES = ("ant", "bee")


def cloud(num_images: int, center: int, seed: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.random.default_rng(seed).normal(size=(num_images, 24)) * 0.4 + 3 * np.eye(24)[center])


def names(num_images: int) -> tuple[str, ...]:
    return tuple(f"{number}.jpg" for number in range(num_images))


def test_drift_is_absent_for_similar_images() -> None:
    reference = make_reference_features(cloud(400, 0, 0), np.arange(400) % 2, names(400))

    drift = estimate_drift(reference, cloud(200, 0, 1), np.arange(200) % 2, names(200), CLASSES)

    assert not drift.drifted
    assert drift.ood_fraction < 0.12
    assert drift.p_value > 0.01
    assert "No significant drift" in drift.words


def test_drift_is_detected_with_examples() -> None:
    reference = make_reference_features(cloud(400, 0, 0), np.arange(400) % 2, names(400))
    mixed = np.concatenate([cloud(150, 0, 1), cloud(50, 7, 2)])

    drift = estimate_drift(reference, mixed, np.zeros(200, dtype=np.int64), names(200), CLASSES)

    assert drift.drifted
    assert all(int(one.path.removesuffix(".jpg")) >= 150 and one.ood_score > 1 for one in drift.examples)
    assert drift.mix == {"ant": (0.5, 1.0), "bee": (0.5, 0.0)}


def test_drift_has_stated_false_alarm_rate() -> None:
    p_values = [similar_images(seed) for seed in range(40)]

    assert sum(min(pair) <= 0.005 for pair in p_values) <= 2
    for of_one_test in zip(*p_values, strict=True):
        assert sum(p_value <= 0.25 for p_value in of_one_test) <= 18  # 10 expected; 18 or more have a probability of 1/300


def similar_images(seed: int) -> tuple[float, float]:
    """p-values of 80 images like the 120 training images."""
    reference = make_reference_features(cloud(120, 0, 2 * seed), np.arange(120) % 2, names(120))
    drift = estimate_drift(reference, cloud(80, 0, 2 * seed + 1), np.zeros(80, dtype=np.int64), names(80), CLASSES)
    return drift.ood_p_value, drift.p_value
