# ruff: noqa: TID253 - the reference that the numbers are compared with
from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from automl_tl.errors import TooFewImagesError
from automl_tl.evaluation.metrics import calibration_error, evaluate
from automl_tl.values import Evaluation, Metric

NAMES = ("ant", "bee", "tulip")


def drawn(num_images: int, num_classes: int, seed: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), generator.integers(0, num_classes, num_images - num_classes)])
    scores = generator.normal(size=(num_images, num_classes))
    scores[np.arange(num_images), labels] += 1
    powers = np.exp(scores)
    return labels, powers / powers.sum(axis=1, keepdims=True)


def test_evaluate_equals_scikit_learn() -> None:
    labels, probabilities = drawn(200, 3)
    predicted = probabilities.argmax(axis=1)

    evaluation = evaluate(labels, probabilities, NAMES)

    assert evaluation.num_images == 200
    assert evaluation.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert evaluation.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert evaluation.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert evaluation.log_loss == pytest.approx(metrics.log_loss(labels, probabilities))
    assert np.array_equal(evaluation.confusion, metrics.confusion_matrix(labels, predicted))
    assert evaluation.per_class["bee"].precision == pytest.approx(metrics.precision_score(labels, predicted, average=None)[1])
    assert evaluation.per_class["bee"].recall == pytest.approx(metrics.recall_score(labels, predicted, average=None)[1])


def test_evaluate_equals_four_images_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1, 0], [0.4, 0.6, 0], [0.2, 0.8, 0], [0.3, 0.7, 0]])

    evaluation = evaluate(labels, probabilities, NAMES)

    assert evaluation.accuracy == 0.75
    assert evaluation.balanced_accuracy == 0.75
    assert evaluation.per_class["ant"].recall == 0.5
    assert evaluation.per_class["bee"].precision == pytest.approx(2 / 3)
    assert evaluation.log_loss == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.7]).mean())
    assert evaluation.confusion == ((1, 1, 0), (0, 2, 0), (0, 0, 0))


def test_evaluate_gives_no_scores_for_absent_class() -> None:
    evaluation = evaluate(np.array([0, 1]), np.array([[1.0, 0, 0], [0, 1.0, 0]]), NAMES)

    tulip = evaluation.per_class["tulip"]
    assert (tulip.precision, tulip.recall, tulip.recall_interval, tulip.f1) == (None, None, None, None)
    assert evaluation.balanced_accuracy == 1


def test_evaluate_gives_top5_from_ten_classes() -> None:
    labels, probabilities = drawn(60, 10)

    evaluation = evaluate(labels, probabilities, [str(index) for index in range(10)])

    assert evaluation.top5_accuracy == pytest.approx(metrics.top_k_accuracy_score(labels, probabilities, k=5))
    assert evaluate(*drawn(60, 9), [str(index) for index in range(9)]).top5_accuracy is None


def test_calibration_error_equals_two_bins_by_hand() -> None:
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])

    assert calibration_error(labels, probabilities) == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)


def test_evaluate_accepts_half_precision() -> None:
    labels, probabilities = drawn(50, 3)

    assert evaluate(labels, probabilities.astype(np.float16), NAMES).accuracy == evaluate(labels, probabilities, NAMES).accuracy


def test_evaluate_rejects_no_images() -> None:
    with pytest.raises(TooFewImagesError, match="at least one labeled image"):
        evaluate(np.zeros(0, dtype=int), np.zeros((0, 3)), NAMES)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        (np.array([0, 1]), np.array([[1.0, 0.0, 0.0]])),
        (np.array([3]), np.array([[1.0, 0.0, 0.0]])),
        (np.array([0]), np.array([[0.9, 0.9, 0.9]])),
        (np.array([0]), np.array([[np.nan, 0.5, 0.5]])),
        (np.array([0]), np.array([[0.5, 0.5]])),
    ],
    ids=["other length", "label outside", "sum", "nan", "other classes"],
)
def test_evaluate_rejects_arrays_that_do_not_fit(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match=r"fit|classes|sum to 1"):
        evaluate(labels, probabilities, NAMES)


def test_evaluate_summarizes_interval_baseline_and_weakest_class() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    predicted = np.array([0] * 30 + [1] * 7 + [0] * 3)

    words = evaluate(labels, np.eye(3)[predicted], NAMES).words

    assert words.startswith("Accuracy 92.5% (95% CI 80\N{EN DASH}98%, n = 40).")
    assert "Always predicting 'ant' would give 75%." in words
    assert "Lowest recall: 'bee', 7 of 10" in words
    assert "Most frequent confusion: 'bee' predicted as 'ant' (3 times)." in words


def test_evaluate_summary_names_insignificant_accuracy() -> None:
    labels = np.array([0] * 9 + [1])

    assert "Not significantly better than always predicting 'ant'" in evaluate(labels, np.eye(3)[labels], NAMES).words


def rare(found: int, total: int, others: int) -> Evaluation:
    """An evaluation in which the common class is always found, and ``found`` of ``total`` images of the rare one."""
    labels = np.array([0] * others + [1] * total)
    predicted = np.array([0] * others + [1] * found + [0] * (total - found))
    return evaluate(labels, np.eye(2)[predicted], ("daisy", "dandelion"))


@pytest.mark.parametrize(("others", "headline"), [(30, "accuracy"), (31, "balanced_accuracy")])
def test_evaluate_reads_balanced_accuracy_first_if_the_images_are_imbalanced(others: int, headline: str) -> None:
    evaluation = rare(8, 10, others)

    assert evaluation.headline == headline
    assert evaluation.words.startswith(headline.capitalize().replace("_", " "))


def test_evaluate_reads_balanced_accuracy_first_if_training_was_imbalanced() -> None:
    labels = np.array([0] * 24 + [1] * 24)

    evaluation = evaluate(labels, np.eye(2)[np.zeros(48, dtype=int)], ("daisy", "dandelion"), training_imbalance=12.0)

    assert evaluation.headline == "balanced_accuracy"
    assert evaluation.words.startswith("Balanced accuracy 50% (95% CI ")
    assert "Not significantly better than always predicting 'daisy' (50% balanced accuracy, 50% accuracy)." in evaluation.words
    assert evaluation.warnings == ("dandelion: 0 of 24 found",)


def test_evaluate_warns_of_classes_that_are_missed() -> None:
    assert rare(0, 1, 100).warnings == ("dandelion: 0 of 1 found",)
    assert rare(4, 30, 100).warnings == ("dandelion: 4 of 30 found, less than by guessing (50%)",)
    assert rare(12, 30, 100).warnings == ()


def test_evaluate_warns_of_no_class_without_images() -> None:
    assert evaluate(np.array([0, 0]), np.eye(3)[[0, 0]], NAMES).warnings == ()


@settings(max_examples=30, deadline=None)
@given(num_images=st.integers(3, 40), seed=st.integers(0, 10_000))
def test_evaluate_survives_json_and_stays_in_range(num_images: int, seed: int) -> None:
    evaluation = evaluate(*drawn(num_images, 3, seed), NAMES)

    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation
    assert evaluation.interval[0] <= evaluation.accuracy <= evaluation.interval[1]
    assert sum(map(sum, evaluation.confusion)) == num_images


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "log_loss"])
def test_evaluate_reads_the_requested_metric_first(metric: Metric) -> None:
    labels = np.repeat([0, 1], [40, 4])
    probabilities = np.where(labels[:, None] == [0, 1], 0.8, 0.2)

    evaluation = evaluate(labels, probabilities, ["cat", "dog"], metric=metric)

    value, interval = evaluation.measured(metric)
    assert (evaluation.headline, evaluation.metric) == (metric, metric)
    assert interval is not None
    assert interval[0] <= value <= interval[1]
    assert evaluation.words.startswith({"macro_f1": "Macro F1"}.get(metric, metric.capitalize().replace("_", " ")))
