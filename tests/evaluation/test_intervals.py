# ruff: noqa: TID253 - the reference that the numbers are compared with
from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from automl_tl.evaluation import bootstrap, clopper_pearson_upper, wilson
from automl_tl.evaluation.arrays import FloatArray


@pytest.mark.parametrize(("correct", "total"), [(0, 7), (7, 7), (37, 40), (1, 1), (500, 1000), (999, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilson_is_that_of_scipy(correct: int, total: int, confidence: float) -> None:
    reference = binomtest(correct, total).proportion_ci(confidence, method="wilson")

    assert wilson(correct, total, confidence) == pytest.approx((reference.low, reference.high))


def test_no_image_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_more_right_than_images_is_refused() -> None:
    with pytest.raises(ValueError, match="5 of 4"):
        wilson(5, 4)


@pytest.mark.parametrize(("wrong", "total"), [(0, 59), (3, 200), (40, 40)])
def test_the_upper_bound_is_that_of_scipys_exact_test(wrong: int, total: int) -> None:
    reference = binomtest(wrong, total, alternative="less").proportion_ci(0.95, method="exact")

    assert clopper_pearson_upper(wrong, total) == pytest.approx(reference.high)


def test_no_error_on_59_images_bounds_the_rate_by_five_percent() -> None:
    assert clopper_pearson_upper(0, 59) == pytest.approx(0.0495, abs=1e-4)  # 0.95 ** (1/59), the rule of three


@pytest.mark.parametrize("num_images", [20, 40, 150])
def test_wilson_intervals_cover_as_often_as_they_promise(num_images: int) -> None:
    generator = np.random.default_rng(0)
    truths = generator.uniform(0.5, 1.0, size=2000)
    seen = generator.binomial(num_images, truths)

    intervals = np.array([wilson(int(count), num_images) for count in seen])
    covered = ((intervals[:, 0] <= truths) & (truths <= intervals[:, 1])).mean()

    assert 0.935 <= covered <= 0.97


def test_bootstrap_intervals_of_balanced_accuracy_cover_about_as_often_as_they_promise() -> None:
    generator = np.random.default_rng(1)
    covered = [covers(generator) for _ in range(150)]

    assert 0.89 <= np.mean(covered) <= 1.0


def covers(generator: np.random.Generator) -> bool:
    labels = np.repeat([0, 1], [60, 20])
    right = generator.random(80) < np.where(labels == 0, 0.9, 0.7)
    low, high = bootstrap(labels, np.where(right, labels, 1 - labels), balanced_accuracy, num_classes=2, draws=200)
    return bool(low <= 0.8 <= high)


def balanced_accuracy(confusion: FloatArray) -> float:
    return float((confusion.diagonal() / confusion.sum(axis=1)).mean())
