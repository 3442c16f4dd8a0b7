"""Metrics of a classifier: from labels and probabilities to an ``Evaluation`` and a summary. Formulas are scikit-learn's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from automl_tl.errors import TooFewImagesError
from automl_tl.evaluation.calibration import confidence_bins
from automl_tl.evaluation.intervals import class_mean_intervals, wilson
from automl_tl.runtime.formatting import metric_name, metric_range, metric_text, percent, percent_range
from automl_tl.values import IMBALANCED, ClassScore, Evaluation, Interval, Metric

MIN_CLASSES_FOR_TOP5 = 10  # below that, top-5 accuracy says little
MIN_IMAGES_TO_NAME = 5  # of a class, before the summary names it
WIDE_INTERVAL = 0.2
SUM_TOLERANCE = 1e-3  # float16 probabilities of 1000 classes sum to 1 within this


def evaluate(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    *,
    training_imbalance: float = 1.0,
    metric: Metric | None = None,
) -> Evaluation:
    """Return the metrics of ``probabilities``; the prediction is the largest probability, the first of equal ones.

    Balanced accuracy is the mean recall of the classes that have images; macro-F1 is the mean over the classes that have
    images or were predicted. The headline is ``metric``; without one, accuracy, or balanced accuracy where classes are
    imbalanced (decision 49).

    Args:
        labels: ``(N,)``, indices of the true classes.
        probabilities: ``(N, C)``, rows add up to 1.
        classes: names of the C classes.
        training_imbalance: images of the largest class by those of the smallest, in what the model learned from.
        metric: that the model was chosen by on request.

    Raises:
        TooFewImagesError: there are no images.
        ValueError: the shapes do not fit.
    """
    labels = np.asarray(labels)
    if labels.size == 0:
        raise TooFewImagesError("There is no image to evaluate on", {}, "Expected at least one labeled image.")
    exact = check_probabilities(labels, probabilities)
    if exact.shape[1] != len(classes):
        raise ValueError(f"{exact.shape[1]} columns of probabilities don't fit {len(classes)} classes.")
    predicted = exact.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)  # rows are true classes
    np.add.at(confusion, (labels, predicted), 1)
    num_correct = int(confusion.trace())
    per_class = _class_scores(labels, predicted, classes)
    balanced_interval, f1_interval = class_mean_intervals(confusion)
    top5 = _top5_accuracy(labels, exact)
    balanced = _mean(score.recall for score in per_class.values())
    sizes = confusion.sum(axis=1)[confusion.any(axis=1)]
    is_imbalanced = max(training_imbalance, float(sizes.max() / sizes.min())) > IMBALANCED
    headline: Metric = metric or ("balanced_accuracy" if is_imbalanced else "accuracy")
    losses = -np.log(np.maximum(exact[np.arange(labels.size), labels], np.finfo(np.float64).eps))
    evaluation = Evaluation(
        accuracy=num_correct / labels.size,
        interval=wilson(num_correct, labels.size),
        num_images=labels.size,
        balanced_accuracy=balanced,
        balanced_accuracy_interval=balanced_interval,
        macro_f1=_mean(score.f1 for score in per_class.values()),
        macro_f1_interval=f1_interval,
        log_loss=_log_loss(labels, exact),
        log_loss_interval=_mean_interval(losses),
        calibration_error=calibration_error(labels, exact),
        top5_accuracy=top5,
        top5_interval=None if top5 is None else wilson(round(top5 * labels.size), labels.size),
        per_class=per_class,
        classes=tuple(classes),
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        words="",
        headline=headline,
        metric=metric,
        warnings=tuple(_missed_classes(confusion, classes)),
    )
    return evaluation.model_copy(update={"words": _summary(evaluation, confusion)})


def calibration_error(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy over 15 bins (Guo et al. 2017).

    Args:
        labels: ``(N,)``, indices of the true classes.
        probabilities: ``(N, C)``.
    """
    wide = np.asarray(probabilities, dtype=np.float64)
    bins = confidence_bins(wide.max(axis=1), wide.argmax(axis=1) == labels)
    return sum(b.num_images * abs(b.confidence - b.accuracy) for b in bins) / sum(b.num_images for b in bins)


def check_probabilities(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return ``probabilities`` with rows that sum to exactly 1.

    Args:
        labels: ``(N,)``, indices of the true classes.
        probabilities: ``(N, C)``.

    Raises:
        ValueError: the shapes differ, a label is not a class index, or a row is not a probability distribution.
    """
    wide = np.asarray(probabilities, dtype=np.float64)
    if wide.ndim != 2 or labels.shape != wide.shape[:1]:
        raise ValueError(f"Labels {labels.shape} don't fit probabilities {wide.shape}; expected (N,) and (N, C).")
    num_classes = wide.shape[1]
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(f"Labels run from {labels.min()} to {labels.max()}, but there are {num_classes} classes.")
    sums = wide.sum(axis=1, keepdims=True)
    if not np.isfinite(wide).all() or (wide < 0).any() or (np.abs(sums - 1) > SUM_TOLERANCE).any():
        raise ValueError("Every row of probabilities must be finite, not negative, and sum to 1.")
    return np.asarray(wide / sums, dtype=np.float64)


def _class_scores(labels: NDArray[np.integer], predicted: NDArray[np.integer], classes: Sequence[str]) -> dict[str, ClassScore]:
    """Return the scores by class; ``None`` where a score would be 0/0."""
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


def _mean(scores: Iterable[float | None]) -> float:
    defined = [score for score in scores if score is not None]
    return min(1.0, math.fsum(defined) / len(defined))


def _log_loss(labels: NDArray[np.integer], probabilities: NDArray[np.float64]) -> float:
    from sklearn.metrics import log_loss

    if probabilities.shape[1] == 1:
        return 0.0
    return float(log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1])))


def _mean_interval(losses: NDArray[np.float64]) -> Interval:
    """Return the 95% interval of a mean of ``losses`` ``(N,)``, which are not negative (central limit theorem)."""
    mean, half = float(losses.mean()), 1.96 * float(losses.std()) / len(losses) ** 0.5
    return max(0.0, mean - half), mean + half


def _top5_accuracy(labels: NDArray[np.integer], probabilities: NDArray[np.float64]) -> float | None:
    from sklearn.metrics import top_k_accuracy_score

    num_classes = probabilities.shape[1]
    if num_classes < MIN_CLASSES_FOR_TOP5:
        return None
    return float(top_k_accuracy_score(labels, probabilities, k=5, labels=np.arange(num_classes)))


def _missed_classes(confusion: NDArray[np.int64], classes: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each class that is never found, or significantly less often than by guessing; largest first."""
    chance = 1 / len(classes)
    for index in np.argsort(-confusion.sum(axis=1), kind="stable"):
        correct, total = int(confusion[index, index]), int(confusion[index].sum())
        if total and not correct:
            yield f"{classes[index]}: 0 of {total} found"
        elif total and wilson(correct, total)[1] < chance:
            yield f"{classes[index]}: {correct} of {total} found, less than by guessing ({percent(chance)})"


def _summary(evaluation: Evaluation, confusion: NDArray[np.int64]) -> str:
    """Name the headline with its interval, accuracy, the majority baseline, the lowest recall and the main confusion."""
    headline = evaluation.headline
    value, interval = evaluation.measured(headline)
    sentence = f"accuracy {percent(evaluation.accuracy)} (95% CI {percent_range(evaluation.interval)}, n = {confusion.sum()})."
    if headline != "accuracy":
        figures = f"{metric_text(headline, value)} (95% CI {metric_range(headline, interval)})"
        sentence = f"{metric_name(headline)} {figures}, {sentence}"
    low, high = interval or (0.0, 1.0)
    sentences = (
        sentence[0].upper() + sentence[1:],
        "More images would narrow it." if high - low > WIDE_INTERVAL else "",
        _baseline_sentence(evaluation, confusion),
        _lowest_recall_sentence(confusion, evaluation.classes),
        _confusion_sentence(confusion, evaluation.classes),
    )
    return " ".join(sentence for sentence in sentences if sentence)


def _baseline_sentence(evaluation: Evaluation, confusion: NDArray[np.int64]) -> str:
    """Compare the headline with always predicting the most frequent class; the log loss, with its frequencies."""
    by_class = confusion.sum(axis=1)
    largest, num_present = int(by_class.argmax()), int((by_class > 0).sum())
    name = evaluation.classes[largest]
    if num_present < 2:
        return f"All images are {name!r}; errors on other classes are not measured."
    shares = by_class[by_class > 0] / by_class.sum()
    share, (_, interval) = float(shares.max()), evaluation.measured(evaluation.headline)
    assert interval is not None
    if evaluation.headline == "log_loss":
        entropy = float(-(shares * np.log(shares)).sum())
        verb = "would give" if interval[1] < entropy else "is not significantly worse:"
        return f"Predicting the class frequencies {verb} {entropy:.3f}."
    baselines = {"accuracy": share, "balanced_accuracy": 1 / num_present, "macro_f1": 2 * share / (1 + share) / num_present}
    figure, baseline = f"{percent(share)}", baselines[evaluation.headline]
    if evaluation.headline != "accuracy":
        figure = f"{percent(baseline)} {metric_name(evaluation.headline)}, {figure} accuracy"
    if interval[0] <= baseline:
        return f"Not significantly better than always predicting {name!r} ({figure})."
    return f"Always predicting {name!r} would give {figure}."


def _lowest_recall_sentence(confusion: NDArray[np.int64], classes: Sequence[str]) -> str:
    by_class = confusion.sum(axis=1)
    named = np.flatnonzero(by_class >= MIN_IMAGES_TO_NAME)
    recalls = confusion.diagonal()[named] / by_class[named]
    if named.size < 2 or recalls.min() == recalls.max():
        return ""
    lowest = int(named[recalls.argmin()])
    correct, total = int(confusion[lowest, lowest]), int(by_class[lowest])
    return f"Lowest recall: {classes[lowest]!r}, {correct} of {total} ({percent_range(wilson(correct, total))})."


def _confusion_sentence(confusion: NDArray[np.int64], classes: Sequence[str]) -> str:
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    if wrong.max() < 2:
        return ""
    true, predicted = (int(index) for index in np.unravel_index(wrong.argmax(), wrong.shape))
    return f"Most frequent confusion: {classes[true]!r} predicted as {classes[predicted]!r} ({wrong[true, predicted]} times)."
