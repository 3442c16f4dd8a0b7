"""One honest measurement: from labels and probabilities to an ``Evaluation``. The formulas are scikit-learn's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from automl_tl.errors import TooFewImagesError
from automl_tl.evaluation.arrays import FloatArray, IntArray, check_probabilities
from automl_tl.evaluation.calibration import calibration_bins
from automl_tl.evaluation.intervals import class_mean_intervals, wilson
from automl_tl.evaluation.words import in_words
from automl_tl.values import ClassScore, Evaluation

__all__ = ["evaluate"]

MIN_CLASSES_FOR_TOP5 = 10  # below that "one of five" says little


def evaluate(labels: IntArray, probabilities: FloatArray, classes: Sequence[str]) -> Evaluation:
    """Measurement of ``probabilities`` against ``labels``.

    Balanced accuracy is the mean recall of the classes that have images; macro-F1 is the mean over the classes that have
    images or were predicted. Deterministic.

    Args:
        labels: ``(N,)``, class indices 0 to C-1.
        probabilities: ``(N, C)``, rows sum to 1 within 0.001; the largest is the prediction, the first of equals.
        classes: C names, in the order of the columns.

    Raises:
        TooFewImagesError: N is 0.
        ValueError: the arrays don't fit each other.
    """
    labels = np.asarray(labels)
    if labels.size == 0:
        raise TooFewImagesError("There is no image to measure on", {}, "Expected at least one labeled image.")
    exact = check_probabilities(labels, probabilities)
    if exact.shape[1] != len(classes):
        raise ValueError(f"{exact.shape[1]} columns of probabilities don't fit {len(classes)} classes.")
    predicted = exact.argmax(axis=1)
    correct = int((predicted == labels).sum())
    confusion = _confusion(labels, predicted, len(classes))
    per_class = _class_scores(labels, predicted, classes)
    recalls = [score.recall for score in per_class.values() if score.recall is not None]
    f1s = [score.f1 for score in per_class.values() if score.f1 is not None]
    of_recall, of_f1 = class_mean_intervals(confusion)
    top5 = _top5(labels, exact)
    return Evaluation(
        accuracy=correct / labels.size,
        interval=wilson(correct, labels.size),
        num_images=labels.size,
        balanced_accuracy=_mean(recalls),
        balanced_accuracy_interval=of_recall,
        macro_f1=_mean(f1s),
        macro_f1_interval=of_f1,
        log_loss=_log_loss(labels, exact),
        calibration_error=calibration_error(labels, exact),
        top5_accuracy=top5,
        top5_interval=None if top5 is None else wilson(round(top5 * labels.size), labels.size),
        per_class=per_class,
        classes=tuple(classes),
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        words=in_words(correct, confusion, classes),
    )


def calibration_error(labels: IntArray, probabilities: FloatArray) -> float:
    """Expected calibration error, 0 to 1: mean gap between confidence and accuracy over 15 bins (Guo et al. 2017)."""
    bins = calibration_bins(labels, probabilities)
    return sum(b.num_images * abs(b.confidence - b.accuracy) for b in bins) / sum(b.num_images for b in bins)


def _confusion(labels: IntArray, predicted: IntArray, num_classes: int) -> npt.NDArray[np.int64]:
    from sklearn.metrics import confusion_matrix

    return np.asarray(confusion_matrix(labels, predicted, labels=np.arange(num_classes)), dtype=np.int64)


def _class_scores(labels: IntArray, predicted: IntArray, classes: Sequence[str]) -> dict[str, ClassScore]:
    """Scores by class; what would be 0/0 is ``None``."""
    from sklearn.metrics import precision_recall_fscore_support

    scores = precision_recall_fscore_support(labels, predicted, labels=np.arange(len(classes)), zero_division=np.nan)
    return {
        name: ClassScore(
            precision=_known(precision),
            recall=_known(recall),
            recall_interval=wilson(round(recall * total), int(total)) if total else None,
            f1=_known(f1),
            num_images=int(total),
        )
        for name, precision, recall, f1, total in zip(classes, *scores, strict=True)
    }


def _known(score: float) -> float | None:
    return None if np.isnan(score) else float(score)


def _mean(values: Sequence[float]) -> float:
    return min(1.0, math.fsum(values) / len(values))


def _log_loss(labels: IntArray, probabilities: npt.NDArray[np.float64]) -> float:
    from sklearn.metrics import log_loss

    if probabilities.shape[1] == 1:
        return 0.0
    return float(log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1])))


def _top5(labels: IntArray, probabilities: npt.NDArray[np.float64]) -> float | None:
    from sklearn.metrics import top_k_accuracy_score

    num_classes = probabilities.shape[1]
    if num_classes < MIN_CLASSES_FOR_TOP5:
        return None
    return float(top_k_accuracy_score(labels, probabilities, k=5, labels=np.arange(num_classes)))
