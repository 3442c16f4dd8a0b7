"""Compute what the report shows from the facts: table rows, confused pairs, worst errors. No markup."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from automl_tl.evaluation.calibration import CalibrationBin, confidence_bins
from automl_tl.reports.charts import Line
from automl_tl.reports.facts import ReportFacts, TestedImage
from automl_tl.runtime.formatting import percent, percent_range
from automl_tl.values import ClassScore, DatasetIndex, Finding

__all__ = ["ConfusedPair", "PredictedMeasured", "ReportSummary", "summarize"]

MAX_PAIRS, MAX_WORST, MAX_MATRIX = 5, 12, 20
ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class ConfusedPair:
    """Images of class ``true`` that were predicted as ``predicted``."""

    true: str
    predicted: str
    count: int
    share: float
    images: tuple[TestedImage, ...]


@dataclass(frozen=True)
class PredictedMeasured:
    """A figure predicted by the plan and the same figure measured after the fit."""

    what: str
    predicted: str
    measured: str
    verdict: str


@dataclass(frozen=True)
class ReportSummary:
    """Everything that the template needs in addition to the facts."""

    findings: tuple[Finding, ...]
    counts: dict[str, int]
    images_by_class: tuple[tuple[str, int, float], ...]
    class_rows: tuple[tuple[str, ClassScore], ...]
    matrix: tuple[tuple[str, tuple[tuple[int, float], ...]], ...]
    pairs: tuple[ConfusedPair, ...]
    worst: tuple[TestedImage, ...]
    bins: tuple[CalibrationBin, ...]
    estimates: tuple[PredictedMeasured, ...]
    losses: tuple[Line, ...]
    accuracies: tuple[Line, ...]
    learning: tuple[tuple[float, float], ...]
    learning_band: tuple[tuple[float, float, float], ...]


def summarize(facts: ReportFacts) -> ReportSummary:
    """Compute everything that the template needs in addition to ``facts``."""
    findings = (*(facts.data.findings if facts.data else ()), *(facts.fit.findings if facts.fit else ()))
    evaluation = facts.evaluation
    rows = sorted(evaluation.per_class.items(), key=lambda row: _recall(row[1])) if evaluation else []
    points = facts.learning.points if facts.learning else ()
    wrong = [image for image in facts.tested if image.predicted != image.label]
    return ReportSummary(
        findings=tuple(sorted(findings, key=lambda finding: ORDER[finding.severity])),
        counts=_counts(facts),
        images_by_class=_images_by_class(facts.index),
        class_rows=tuple(rows),
        matrix=_matrix(facts),
        pairs=_pairs(facts),
        worst=tuple(sorted(wrong, key=lambda image: (image.true_probability, image.path)))[:MAX_WORST],
        bins=_bins(facts.tested),
        estimates=_predicted_measured(facts),
        losses=_curves(facts, "loss"),
        accuracies=_curves(facts, "accuracy"),
        learning=tuple((point.num_images, point.accuracy) for point in points),
        learning_band=tuple((point.num_images, *point.interval) for point in points),
    )


def _recall(score: ClassScore) -> float:
    return 2.0 if score.recall is None else score.recall


def _counts(facts: ReportFacts) -> dict[str, int]:
    if not facts.index:
        return {}
    parts: dict[str, int] = {}
    left_out = {image.path for image in facts.data.left_out} if facts.data else set()
    if facts.split:
        for image in facts.index.images:
            part = facts.split.splits.get(image.digest)
            if part and image.path not in left_out:
                parts[part] = parts.get(part, 0) + 1
    return {
        **{part: parts[part] for part in ("train", "validation", "test") if part in parts},
        "left out": len(left_out),
        "rejected": len(facts.index.rejected),
        "ignored": sum(facts.index.ignored.values()),
    }


def _images_by_class(index: DatasetIndex | None) -> tuple[tuple[str, int, float], ...]:
    """Return class, number of images, and its fraction of the largest class."""
    if not index:
        return ()
    counts = {name: 0 for name in index.classes}
    for image in index.images:
        counts[image.label] = counts.get(image.label, 0) + 1
    most = max(counts.values(), default=0) or 1
    return tuple((name, count, count / most) for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _matrix(facts: ReportFacts) -> tuple[tuple[str, tuple[tuple[int, float], ...]], ...]:
    """Rows of (count, share of the row); empty if there are too many classes to read."""
    evaluation = facts.evaluation
    if not evaluation or len(evaluation.classes) > MAX_MATRIX:
        return ()
    return tuple(
        (name, tuple((cell, cell / max(1, sum(row))) for cell in row))
        for name, row in zip(evaluation.classes, evaluation.confusion, strict=True)
    )


def _pairs(facts: ReportFacts) -> tuple[ConfusedPair, ...]:
    if not facts.evaluation:
        return ()
    names, counts = facts.evaluation.classes, np.array(facts.evaluation.confusion)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    best = np.argsort(-counts, axis=None, kind="stable")[:MAX_PAIRS]
    cells = [(int(cell) // len(names), int(cell) % len(names)) for cell in best]
    return tuple(_confused(facts, (names[t], names[s]), int(counts[t, s]), int(totals[t])) for t, s in cells if counts[t, s])


def _confused(facts: ReportFacts, pair: tuple[str, str], count: int, total: int) -> ConfusedPair:
    images = (image for image in facts.tested if (image.label, image.predicted) == pair)
    surest = tuple(sorted(images, key=lambda image: -image.probability)[:3])
    return ConfusedPair(*pair, count=count, share=count / total, images=surest)


def _bins(tested: tuple[TestedImage, ...]) -> tuple[CalibrationBin, ...]:
    if not tested:
        return ()
    sure = np.array([image.probability for image in tested])
    right = np.array([image.predicted == image.label for image in tested])
    return confidence_bins(sure, right)


def _predicted_measured(facts: ReportFacts) -> tuple[PredictedMeasured, ...]:
    if not facts.plan:
        return ()
    expected, rows = facts.plan.expected, []
    if expected.accuracy is not None and facts.evaluation:
        interval, measured = expected.accuracy_interval, facts.evaluation
        accuracy = percent(expected.accuracy) + (f" ({percent_range(interval)})" if interval else "")
        apart = interval and (measured.interval[1] < interval[0] or measured.interval[0] > interval[1])
        verdict = "the intervals do not overlap" if apart else "as predicted, within the intervals" if interval else ""
        rows.append(
            PredictedMeasured(
                "accuracy", accuracy, f"{percent(measured.accuracy)} ({percent_range(measured.interval)})", verdict
            )
        )
    for what, unit, predicted, measured_value in (
        ("time", "s", expected.seconds, facts.seconds),
        ("latency of one image", "ms", expected.latency_ms, facts.latency_ms),
        ("size", "MiB", expected.size_mib, facts.size_mib),
    ):
        if predicted and measured_value is not None:
            factor = measured_value / predicted
            verdict = "as predicted, within a quarter" if 0.8 <= factor <= 1.25 else f"{factor:.2g} times the prediction"
            rows.append(PredictedMeasured(what, _amount(predicted, unit), _amount(measured_value, unit), verdict))
    return tuple(rows)


def _amount(value: float, unit: str) -> str:
    """Format with three significant digits."""
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _curves(facts: ReportFacts, kind: str) -> tuple[Line, ...]:
    """Return every column of the training curves whose name contains ``kind``, by epoch."""
    rows = facts.fit.curves if facts.fit else ()
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if kind in name]
    lines = []
    for name in names:
        points = [(float(number + 1), row[name]) for number, row in enumerate(rows) if name in row]
        lines.append((name.replace("_", " "), [(x, y) for x, y in points if isinstance(y, int | float)]))
    return tuple((name, points) for name, points in lines if len(points) > 1)
