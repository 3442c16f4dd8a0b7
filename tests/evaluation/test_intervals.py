# ruff: noqa: TID253 - the reference that the numbers are compared with
from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from automl_tl.evaluation import class_mean_intervals, clopper_pearson_upper, design_effect, wilson


@pytest.mark.parametrize(("correct", "total"), [(0, 7), (7, 7), (37, 40), (1, 1), (500, 1000), (999, 1000)])
def test_wilson_equals_scipy(correct: int, total: int) -> None:
    reference = binomtest(correct, total).proportion_ci(0.95, method="wilson")

    assert wilson(correct, total) == pytest.approx((reference.low, reference.high))


def test_wilson_without_images_is_0_to_1() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_rejects_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="5 of 4"):
        wilson(5, 4)


@pytest.mark.parametrize(("wrong", "total"), [(0, 59), (3, 200), (40, 40)])
def test_clopper_pearson_upper_equals_scipy(wrong: int, total: int) -> None:
    reference = binomtest(wrong, total, alternative="less").proportion_ci(0.95, method="exact")

    assert clopper_pearson_upper(wrong, total) == pytest.approx(reference.high)


def test_clopper_pearson_upper_follows_rule_of_three() -> None:
    assert clopper_pearson_upper(0, 59) == pytest.approx(0.0495, abs=1e-4)  # 0.95 ** (1/59), the rule of three


@pytest.mark.parametrize("num_images", [20, 40, 150])
def test_wilson_has_nominal_coverage(num_images: int) -> None:
    generator = np.random.default_rng(0)
    truths = generator.uniform(0.5, 1.0, size=2000)
    seen = generator.binomial(num_images, truths)

    intervals = np.array([wilson(int(count), num_images) for count in seen])
    covered = ((intervals[:, 0] <= truths) & (truths <= intervals[:, 1])).mean()

    assert 0.935 <= covered <= 0.97


@pytest.mark.parametrize(
    ("sizes", "recalls"),
    [([20, 20], [0.95, 0.95]), ([70, 83], [0.94, 0.92]), ([200, 20, 8], [0.99, 0.97, 0.9]), ([5] * 10, [0.9] * 10)],
)
def test_class_mean_intervals_have_nominal_coverage(sizes: list[int], recalls: list[float]) -> None:
    generator = np.random.default_rng(1)
    others = (1 - np.array(recalls)) / (len(sizes) - 1)
    chances = np.diag(np.array(recalls) - others) + others[:, None]
    expected = chances * np.array(sizes)[:, None]
    true_f1 = np.mean(2 * expected.diagonal() / (expected.sum(axis=0) + expected.sum(axis=1)))

    drawn = [np.stack([generator.multinomial(size, row) for size, row in zip(sizes, chances, strict=True)]) for _ in range(200)]
    intervals = np.array([class_mean_intervals(confusion, draws=200) for confusion in drawn])
    truths = np.array([np.mean(recalls), true_f1])
    covered = ((intervals[:, :, 0] <= truths) & (truths <= intervals[:, :, 1])).mean(axis=0)

    assert (covered >= 0.92).all()


def test_class_mean_intervals_stay_wide_for_small_class_without_errors() -> None:
    balanced, f1 = class_mean_intervals(np.diag([500, 3]))

    assert balanced[1] == f1[1] == 1.0
    assert balanced[0] == f1[0] == pytest.approx(wilson(12, 12)[0], abs=0.01)  # 4 / (1/500 + 1/3) is 11.9 images


def test_class_mean_intervals_ignore_empty_classes() -> None:
    assert class_mean_intervals(np.array([[40, 2, 0], [3, 38, 0], [0, 0, 0]])) == class_mean_intervals(
        np.array([[40, 2], [3, 38]])
    )


def test_design_effect_counts_groups_that_share_their_fate() -> None:
    """Ten groups of four equal images are ten images: each counts a quarter. Alone or unlike, images count fully."""
    is_correct = np.repeat([True, True, False, True, False], 8)
    by_four, alone = np.arange(40) // 4, np.arange(40)

    assert design_effect(is_correct, by_four) == pytest.approx(4)
    assert design_effect(is_correct, alone) == 1
    assert design_effect(np.tile([True, True, True, False], 10), by_four) == 1


def test_design_effect_without_errors_counts_groups() -> None:
    assert design_effect(np.ones(40, dtype=bool), np.arange(40) // 4) == pytest.approx(4)
