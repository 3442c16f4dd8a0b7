# ruff: noqa: TID253 - the reference that the numbers are compared with
from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from automl_tl.errors import TooFewImagesError
from automl_tl.evaluation import calibration_error, evaluate
from automl_tl.values import Evaluation

NAMES = ("ant", "bee", "tulip")


def drawn(num_images: int, num_classes: int, seed: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), generator.integers(0, num_classes, num_images - num_classes)])
    scores = generator.normal(size=(num_images, num_classes))
    scores[np.arange(num_images), labels] += 1
    powers = np.exp(scores)
    return labels, powers / powers.sum(axis=1, keepdims=True)


def test_every_figure_is_that_of_scikit_learn() -> None:
    labels, probabilities = drawn(200, 3)
    predicted = probabilities.argmax(axis=1)

    found = evaluate(labels, probabilities, NAMES)

    assert found.num_images == 200
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert found.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert found.log_loss == pytest.approx(metrics.log_loss(labels, probabilities))
    assert np.array_equal(found.confusion, metrics.confusion_matrix(labels, predicted))
    assert found.per_class["bee"].precision == pytest.approx(metrics.precision_score(labels, predicted, average=None)[1])
    assert found.per_class["bee"].recall == pytest.approx(metrics.recall_score(labels, predicted, average=None)[1])


def test_four_images_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1, 0], [0.4, 0.6, 0], [0.2, 0.8, 0], [0.3, 0.7, 0]])

    found = evaluate(labels, probabilities, NAMES)

    assert found.accuracy == 0.75
    assert found.balanced_accuracy == 0.75
    assert found.per_class["ant"].recall == 0.5
    assert found.per_class["bee"].precision == pytest.approx(2 / 3)
    assert found.log_loss == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.7]).mean())
    assert found.confusion == ((1, 1, 0), (0, 2, 0), (0, 0, 0))


def test_a_class_without_images_or_predictions_has_no_scores() -> None:
    found = evaluate(np.array([0, 1]), np.array([[1.0, 0, 0], [0, 1.0, 0]]), NAMES)

    tulip = found.per_class["tulip"]
    assert (tulip.precision, tulip.recall, tulip.recall_interval, tulip.f1) == (None, None, None, None)
    assert found.balanced_accuracy == 1


def test_top_five_is_told_only_from_ten_classes_on() -> None:
    labels, probabilities = drawn(60, 10)

    found = evaluate(labels, probabilities, [str(index) for index in range(10)])

    assert found.top5_accuracy == pytest.approx(metrics.top_k_accuracy_score(labels, probabilities, k=5))
    assert evaluate(*drawn(60, 9), [str(index) for index in range(9)]).top5_accuracy is None


def test_calibration_error_of_two_bins_by_hand() -> None:
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])

    assert calibration_error(labels, probabilities) == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)


def test_half_precision_probabilities_are_taken() -> None:
    labels, probabilities = drawn(50, 3)

    assert evaluate(labels, probabilities.astype(np.float16), NAMES).accuracy == evaluate(labels, probabilities, NAMES).accuracy


def test_nothing_to_measure_is_an_error_that_says_so() -> None:
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
def test_arrays_that_do_not_fit_are_refused(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match=r"fit|classes|sum to 1"):
        evaluate(labels, probabilities, NAMES)


def test_the_words_give_range_guess_and_weakness() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    predicted = np.array([0] * 30 + [1] * 7 + [0] * 3)

    words = evaluate(labels, np.eye(3)[predicted], NAMES).words

    assert words.startswith("92.5% on 40 images means 80-98% on new images of the same kind (95% sure).")
    assert "Always saying 'ant' would give 75%." in words
    assert "Hardest is 'bee': 7 of 10 recognized" in words
    assert "Most often 'bee' is taken for 'ant' (3 times)." in words


def test_the_words_say_when_guessing_would_do() -> None:
    labels = np.array([0] * 9 + [1])

    assert "not clearly better than always saying 'ant'" in evaluate(labels, np.eye(3)[labels], NAMES).words


@settings(max_examples=30, deadline=None)
@given(num_images=st.integers(3, 40), seed=st.integers(0, 10_000))
def test_an_evaluation_survives_json_and_stays_in_range(num_images: int, seed: int) -> None:
    found = evaluate(*drawn(num_images, 3, seed), NAMES)

    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    assert found.interval[0] <= found.accuracy <= found.interval[1]
    assert sum(map(sum, found.confusion)) == num_images
