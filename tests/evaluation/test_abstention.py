from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from automl_tl.errors import UnsatisfiableConstraintsError
from automl_tl.evaluation.abstention import (
    AbstentionPolicy,
    guarantee_error_rate,
    make_policy,
    num_images_needed,
    smallest_error_rate,
)
from automl_tl.evaluation.reference_features import make_reference_features

Drawn = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


def drawn(num_images: int, generator: np.random.Generator) -> Drawn:
    """Labels and probabilities of two classes; accuracy is the square root of the confidence, so they are not calibrated."""
    confidence = generator.uniform(0.5, 1.0, num_images)
    labels = (generator.random(num_images) > np.sqrt(confidence)).astype(np.int64)
    return labels, np.stack([confidence, 1 - confidence], axis=1)


def realized_error(threshold: float) -> float:
    """Exact error rate above ``threshold`` in the distribution of ``drawn``: the mean of 1 - sqrt(p) above it."""
    low = max(threshold, 0.5)
    return float(1 - (2 / 3) * (1 - low**1.5) / (1 - low))


def test_guarantee_error_rate_holds_with_stated_confidence() -> None:
    generator = np.random.default_rng(0)
    guarantees = [guarantee_error_rate(*drawn(800, generator), max_error=0.1) for _ in range(200)]

    supported = [guarantee for guarantee in guarantees if guarantee.kept]
    violated = [guarantee for guarantee in supported if realized_error(guarantee.threshold) > 0.1]

    assert len(supported) > 150
    assert len(violated) / len(guarantees) <= 0.05


def test_guarantee_error_rate_answers_everything_for_perfect_model() -> None:
    labels = np.zeros(600, dtype=np.int64)
    probabilities = np.tile([0.9, 0.1], (600, 1))

    guarantee = guarantee_error_rate(labels, probabilities, 0.01)

    assert (guarantee.kept, guarantee.coverage, guarantee.threshold) == (True, 1.0, 0.0)
    assert "At most 1% of the answers" in guarantee.words


@pytest.mark.parametrize(("max_error", "needed"), [(0.05, 59), (0.01, 299)])
def test_num_images_needed_follows_rule_of_three(max_error: float, needed: int) -> None:
    assert num_images_needed(max_error) == needed
    assert (1 - max_error) ** needed <= 0.05 < (1 - max_error) ** (needed - 1)


def test_guarantee_error_rate_names_smallest_possible_rate() -> None:
    labels, probabilities = np.zeros(100, dtype=np.int64), np.tile([0.9, 0.1], (100, 1))

    guarantee = guarantee_error_rate(labels, probabilities, 0.01)

    assert (guarantee.kept, guarantee.threshold, guarantee.num_answered) == (False, 1.0, 0)
    assert "even a perfect model needs 299" in guarantee.words
    assert f"{100 * (smallest_error_rate(labels, probabilities) or 0):.1f}%" in guarantee.words


def test_smallest_error_rate_can_be_guaranteed() -> None:
    labels, probabilities = drawn(400, np.random.default_rng(1))

    smallest = smallest_error_rate(labels, probabilities)

    assert smallest is not None
    assert guarantee_error_rate(labels, probabilities, smallest).kept
    assert smallest_error_rate(1 - np.zeros(50, dtype=np.int64), np.tile([0.9, 0.1], (50, 1))) is None


def test_guarantee_error_rate_coverage_falls_with_stricter_rate() -> None:
    labels, probabilities = drawn(2000, np.random.default_rng(2))

    coverages = [guarantee_error_rate(labels, probabilities, rate).coverage for rate in (0.3, 0.2, 0.15, 0.1, 0.05)]

    assert coverages == sorted(coverages, reverse=True)


def test_guarantee_error_rate_answers_equal_confidences_together() -> None:
    labels = np.array([0] * 150 + [1] * 50)
    probabilities = np.repeat([[0.9, 0.1], [0.6, 0.4]], [150, 50], axis=0)

    guarantee = guarantee_error_rate(labels, probabilities, 0.05)

    assert (guarantee.num_answered, guarantee.threshold) == (150, 0.6)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_guarantee_error_rate_rejects_invalid_rate(rate: float) -> None:
    with pytest.raises(ValueError, match="can't be guaranteed"):
        guarantee_error_rate(*drawn(10, np.random.default_rng(0)), max_error=rate)


def test_policy_withholds_low_confidence_and_ood_images() -> None:
    generator = np.random.default_rng(0)
    features = 1 + 0.05 * generator.normal(size=(200, 8))
    reference = make_reference_features(features, np.zeros(200, dtype=int), ("x",) * 200)
    held_out = np.repeat([0, 0, 1], [150, 40, 10]), np.repeat([[0.95, 0.05], [0.7, 0.3]], [150, 50], axis=0).astype(np.float32)
    policy = make_policy(reference, held_out, 0.05)

    new = np.stack([np.ones(8), np.ones(8), np.eye(8)[0]]).astype(np.float32)
    reasons = policy.reasons(new, np.array([[0.95, 0.05], [0.7, 0.3], [0.99, 0.01]], dtype=np.float32))

    assert reasons[0] is None
    assert "confidence 70%" in (reasons[1] or "")
    assert "out of distribution" in (reasons[2] or "")


def test_policy_without_guarantee_and_reference_answers_everything() -> None:
    assert AbstentionPolicy().reasons(np.ones((2, 3), np.float32), np.full((2, 2), 0.5, np.float32)) == [None, None]


def test_make_policy_suggests_rate_that_can_be_guaranteed() -> None:
    held_out = np.zeros(100, dtype=np.int64), np.tile([0.9, 0.1], (100, 1)).astype(np.float32)

    with pytest.raises(UnsatisfiableConstraintsError, match=r"Try --max-error \d"):
        make_policy(None, held_out, 0.001)
