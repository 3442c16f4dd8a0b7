"""Metrics of a classifier: from labels and probabilities to an ``Evaluation`` and a summary. Formulas are scikit-learn's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from automl_tl.errors import TooFewImagesError
from automl_tl.evaluation.arrays import FloatArray, IntArray, check_probabilities
from automl_tl.evaluation.calibration import calibration_bins
from automl_tl.evaluation.intervals import class_mean_intervals, wilson
from automl_tl.runtime.formatting import percent, percent_range
from automl_tl.values import ClassScore, Evaluation

__all__ = ["calibration_error", "evaluate"]

MIN_CLASSES_FOR_TOP5 = 10  # below that, top-5 accuracy says little
MIN_IMAGES_TO_NAME = 5  # of a class, before the summary names it
WIDE_INTERVAL = 0.2


def evaluate(labels: IntArray, probabilities: FloatArray, classes: Sequence[str]) -> Evaluation:
    """Measure ``probabilities`` against ``labels``. Deterministic.

    Balanced accuracy is the mean recall of the classes that have images; macro-F1 is the mean over the classes that have
    images or were predicted.

    Args:
        labels: ``(N,)``, class indices 0 to C-1.
        probabilities: ``(N, C)``, rows sum to 1 within 0.001; the largest is the prediction, the first of equal ones.
        classes: C names, in the order of the columns.

    Raises:
        TooFewImagesError: N is 0.
        ValueError: the shapes don't fit each other.
    """
    labels = np.asarray(labels)
    if labels.size == 0:
        raise TooFewImagesError("There is no image to evaluate on", {}, "Expected at least one labeled image.")
    exact = check_probabilities(labels, probabilities)
    if exact.shape[1] != len(classes):
        raise ValueError(f"{exact.shape[1]} columns of probabilities don't fit {len(classes)} classes.")
    predicted = exact.argmax(axis=1)
    num_correct = int((predicted == labels).sum())
    confusion = _confusion(labels, predicted, len(classes))
    per_class = _class_scores(labels, predicted, classes)
    recalls = [score.recall for score in per_class.values() if score.recall is not None]
    f1s = [score.f1 for score in per_class.values() if score.f1 is not None]
    balanced_interval, f1_interval = class_mean_intervals(confusion)
    top5 = _top5_accuracy(labels, exact)
    return Evaluation(
        accuracy=num_correct / labels.size,
        interval=wilson(num_correct, labels.size),
        num_images=labels.size,
        balanced_accuracy=_mean(recalls),
        balanced_accuracy_interval=balanced_interval,
        macro_f1=_mean(f1s),
        macro_f1_interval=f1_interval,
        log_loss=_log_loss(labels, exact),
        calibration_error=calibration_error(labels, exact),
        top5_accuracy=top5,
        top5_interval=None if top5 is None else wilson(round(top5 * labels.size), labels.size),
        per_class=per_class,
        classes=tuple(classes),
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        words=_summary(num_correct, confusion, classes),
    )


def calibration_error(labels: IntArray, probabilities: FloatArray) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over 15 bins (Guo et al. 2017).

    Args:
        labels: ``(N,)``, class indices.
        probabilities: ``(N, C)``.

    Returns:
        0 to 1.
    """
    bins = calibration_bins(labels, probabilities)
    return sum(b.num_images * abs(b.confidence - b.accuracy) for b in bins) / sum(b.num_images for b in bins)


def _confusion(labels: IntArray, predicted: IntArray, num_classes: int) -> npt.NDArray[np.int64]:
    from sklearn.metrics import confusion_matrix

    return np.asarray(confusion_matrix(labels, predicted, labels=np.arange(num_classes)), dtype=np.int64)


def _class_scores(labels: IntArray, predicted: IntArray, classes: Sequence[str]) -> dict[str, ClassScore]:
    """Scores by class; ``None`` where a score would be 0/0."""
    from sklearn.metrics import precision_recall_fscore_support

    scores = precision_recall_fscore_support(labels, predicted, labels=np.arange(len(classes)), zero_division=np.nan)
    return {
        name: ClassScore(
            precision=_defined(precision),
            recall=_defined(recall),
            recall_interval=wilson(round(recall * total), int(total)) if total else None,
            f1=_defined(f1),
            num_images=int(total),
        )
        for name, precision, recall, f1, total in zip(classes, *scores, strict=True)
    }


def _defined(score: float) -> float | None:
    return None if np.isnan(score) else float(score)


def _mean(values: Sequence[float]) -> float:
    return min(1.0, math.fsum(values) / len(values))


def _log_loss(labels: IntArray, probabilities: npt.NDArray[np.float64]) -> float:
    from sklearn.metrics import log_loss

    if probabilities.shape[1] == 1:
        return 0.0
    return float(log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1])))


def _top5_accuracy(labels: IntArray, probabilities: npt.NDArray[np.float64]) -> float | None:
    from sklearn.metrics import top_k_accuracy_score

    num_classes = probabilities.shape[1]
    if num_classes < MIN_CLASSES_FOR_TOP5:
        return None
    return float(top_k_accuracy_score(labels, probabilities, k=5, labels=np.arange(num_classes)))


def _summary(num_correct: int, confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    """Accuracy with its interval, the majority baseline, the class with the lowest recall, the most frequent confusion."""
    sentences = [_accuracy_sentence(num_correct, int(confusion.sum())), _baseline_sentence(num_correct, confusion, classes)]
    sentences += [_lowest_recall_sentence(confusion, classes), _confusion_sentence(confusion, classes)]
    return " ".join(sentence for sentence in sentences if sentence)


def _accuracy_sentence(num_correct: int, total: int) -> str:
    interval = wilson(num_correct, total)
    sentence = f"Accuracy {percent(num_correct / total)} (95% CI {percent_range(interval)}, n = {total})."
    return f"{sentence} More images would narrow it." if interval[1] - interval[0] > WIDE_INTERVAL else sentence


def _baseline_sentence(num_correct: int, confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    by_class, total = confusion.sum(axis=1), int(confusion.sum())
    largest = int(by_class.argmax())
    if (by_class > 0).sum() < 2:
        return f"All images are {classes[largest]!r}; errors on other classes are not measured."
    baseline = int(by_class[largest]) / total
    if wilson(num_correct, total)[0] <= baseline:
        return f"Not significantly better than always predicting {classes[largest]!r} ({percent(baseline)})."
    return f"Always predicting {classes[largest]!r} would give {percent(baseline)}."


def _lowest_recall_sentence(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    by_class = confusion.sum(axis=1)
    named = np.flatnonzero(by_class >= MIN_IMAGES_TO_NAME)
    recalls = confusion.diagonal()[named] / by_class[named]
    if named.size < 2 or recalls.min() == recalls.max():
        return ""
    lowest = int(named[recalls.argmin()])
    correct, total = int(confusion[lowest, lowest]), int(by_class[lowest])
    return f"Lowest recall: {classes[lowest]!r}, {correct} of {total} ({percent_range(wilson(correct, total))})."


def _confusion_sentence(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    if wrong.max() < 2:
        return ""
    true, predicted = (int(index) for index in np.unravel_index(wrong.argmax(), wrong.shape))
    return f"Most frequent confusion: {classes[true]!r} predicted as {classes[predicted]!r} ({wrong[true, predicted]} times)."
