from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from automl_tl.evaluation.abstention import images_needed, keep_error_below, smallest_promise

Drawn = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


def drawn(num_images: int, generator: np.random.Generator) -> Drawn:
    """Two classes; the model is right with the square root of its confidence: neither calibrated nor useless."""
    sure = generator.uniform(0.5, 1.0, num_images)
    labels = (generator.random(num_images) > np.sqrt(sure)).astype(np.int64)
    return labels, np.stack([sure, 1 - sure], axis=1)


def realised_error(threshold: float) -> float:
    """Exact error rate above ``threshold`` of what ``drawn`` draws from: the mean of 1 - sqrt(p) over it."""
    low = max(threshold, 0.5)
    return float(1 - (2 / 3) * (1 - low**1.5) / (1 - low))


def test_the_promised_error_rate_is_kept_at_least_as_often_as_said() -> None:
    generator = np.random.default_rng(0)
    promises = [keep_error_below(*drawn(800, generator), max_error=0.1) for _ in range(200)]

    kept = [promise for promise in promises if promise.kept]
    broken = [promise for promise in kept if realised_error(promise.threshold) > 0.1]

    assert len(kept) > 150
    assert len(broken) / len(promises) <= 0.05


def test_a_faultless_model_answers_everything_once_there_are_enough_images() -> None:
    labels = np.zeros(600, dtype=np.int64)
    probabilities = np.tile([0.9, 0.1], (600, 1))

    promise = keep_error_below(labels, probabilities, 0.01)

    assert (promise.kept, promise.coverage, promise.threshold) == (True, 1.0, 0.0)
    assert "At most 1% of the answers" in promise.words


@pytest.mark.parametrize(("max_error", "needed"), [(0.05, 59), (0.01, 299)])
def test_the_number_of_images_needed_follows_the_rule_of_three(max_error: float, needed: int) -> None:
    assert images_needed(max_error) == needed
    assert (1 - max_error) ** needed <= 0.05 < (1 - max_error) ** (needed - 1)


def test_what_can_not_be_promised_says_what_can() -> None:
    labels, probabilities = np.zeros(100, dtype=np.int64), np.tile([0.9, 0.1], (100, 1))

    promise = keep_error_below(labels, probabilities, 0.01)

    assert (promise.kept, promise.threshold, promise.num_answered) == (False, 1.0, 0)
    assert "even a faultless model needs 299" in promise.words
    assert f"{100 * (smallest_promise(labels, probabilities) or 0):.1f}%" in promise.words


def test_the_smallest_promise_can_be_made_and_no_model_promises_out_of_nothing() -> None:
    labels, probabilities = drawn(400, np.random.default_rng(1))

    smallest = smallest_promise(labels, probabilities)

    assert smallest is not None
    assert keep_error_below(labels, probabilities, smallest).kept
    assert smallest_promise(1 - np.zeros(50, dtype=np.int64), np.tile([0.9, 0.1], (50, 1))) is None


def test_a_stricter_promise_never_answers_more() -> None:
    labels, probabilities = drawn(2000, np.random.default_rng(2))

    coverages = [keep_error_below(labels, probabilities, rate).coverage for rate in (0.3, 0.2, 0.15, 0.1, 0.05)]

    assert coverages == sorted(coverages, reverse=True)


def test_images_of_equal_confidence_are_answered_together() -> None:
    labels = np.array([0] * 150 + [1] * 50)
    probabilities = np.repeat([[0.9, 0.1], [0.6, 0.4]], [150, 50], axis=0)

    promise = keep_error_below(labels, probabilities, 0.05)

    assert (promise.num_answered, promise.threshold) == (150, 0.6)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="no error rate"):
        keep_error_below(*drawn(10, np.random.default_rng(0)), max_error=rate)
