"""Compute what the report shows from the facts: table rows, confused pairs, worst errors. No markup."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np

from automl_tl.evaluation.calibration import confidence_bins
from automl_tl.reports.charts import Line
from automl_tl.reports.facts import ReportFacts
from automl_tl.runtime.formatting import first_few, metric_name, metric_range, metric_text
from automl_tl.values import DatasetIndex, Evaluation

MAX_PAIRS: Final = 5
MAX_WORST: Final = 12
MAX_MATRIX: Final = 20  # classes
SEVERITIES: Final = ("error", "warning", "info")


def summarize(facts: ReportFacts) -> dict[str, Any]:
    """Compute everything that the template needs in addition to ``facts``."""
    findings = (*(facts.data.findings if facts.data else ()), *facts.fit.findings)
    points = facts.learning.points if facts.learning else ()
    wrong = [image for image in facts.tested if image.predicted != image.label]
    confidences = np.array([image.probability for image in facts.tested])
    return {
        "warnings": first_few(facts.evaluation.warnings, "classes"),
        "findings": sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)),
        "counts": _counts(facts),
        "images_by_class": _images_by_class(facts.index),
        "class_rows": sorted(
            facts.evaluation.per_class.items(), key=lambda row: 2.0 if row[1].recall is None else row[1].recall
        ),
        "matrix": _matrix(facts.evaluation),
        "pairs": _confused_pairs(facts),
        "worst": sorted(wrong, key=lambda image: (image.true_probability, image.path))[:MAX_WORST],
        "bins": confidence_bins(confidences, np.array([image.predicted == image.label for image in facts.tested])),
        "estimates": _compare_estimates(facts),
        "losses": _curves(facts, "loss"),
        "accuracies": _curves(facts, "accuracy"),
        "learning": [(point.num_images, point.accuracy) for point in points],
        "learning_band": [(point.num_images, *point.interval) for point in points],
    }


def _counts(facts: ReportFacts) -> dict[str, int]:
    """Return the number of files by destination; empty without the dataset."""
    if not (facts.index and facts.data and facts.split):
        return {}
    left_out = {image.path for image in facts.data.left_out}
    splits = Counter(facts.split.splits.get(image.digest) for image in facts.index.images if image.path not in left_out)
    return {
        **{split: splits[split] for split in ("train", "validation", "test") if splits[split]},
        "left out": len(left_out),
        "rejected": len(facts.index.rejected),
        "ignored": sum(facts.index.ignored.values()),
    }


def _images_by_class(index: DatasetIndex | None) -> list[tuple[str, int, float]]:
    """Return class, number of images, and its fraction of the largest class."""
    counts = Counter(image.label for image in index.images) if index else Counter[str]()
    return [(name, count, count / max(counts.values())) for name, count in counts.most_common()]


def _matrix(evaluation: Evaluation) -> list[tuple[str, list[tuple[int, float]]]]:
    """Return rows of (count, fraction of the row); empty if there are too many classes to read."""
    if len(evaluation.classes) > MAX_MATRIX:
        return []
    return [
        (name, [(count, count / max(1, sum(row))) for count in row])
        for name, row in zip(evaluation.classes, evaluation.confusion, strict=True)
    ]


def _confused_pairs(facts: ReportFacts) -> list[dict[str, Any]]:
    """Return the most frequent confusions, each with the three most confident images."""
    names, counts = facts.evaluation.classes, np.array(facts.evaluation.confusion)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    pairs = []
    for cell in np.argsort(-counts, axis=None, kind="stable")[:MAX_PAIRS]:
        true, predicted = divmod(int(cell), len(names))
        if count := int(counts[true, predicted]):
            labels = names[true], names[predicted]
            images = [image for image in facts.tested if (image.label, image.predicted) == labels]
            images.sort(key=lambda image: -image.probability)
            pair = {"true": labels[0], "predicted": labels[1], "count": count, "images": images[:3]}
            pairs.append({**pair, "share": count / int(totals[true])})
    return pairs


def _compare_estimates(facts: ReportFacts) -> list[dict[str, str]]:
    """Return predicted and measured values with a verdict."""
    expected, rows = facts.plan.expected, []
    metric, is_accuracy = expected.metric, expected.metric == "accuracy"
    predicted_value = expected.accuracy if is_accuracy else expected.value
    if predicted_value is not None:
        interval, verdict = expected.accuracy_interval if is_accuracy else expected.value_interval, ""
        measured_value, measured_interval = facts.evaluation.measured(metric)
        if interval and measured_interval:
            is_apart = measured_interval[1] < interval[0] or measured_interval[0] > interval[1]
            verdict = "the intervals do not overlap" if is_apart else "as predicted, within the intervals"
        predicted_text = metric_text(metric, predicted_value) + (f" ({metric_range(metric, interval)})" if interval else "")
        measured_text = f"{metric_text(metric, measured_value)} ({metric_range(metric, measured_interval)})"
        rows.append({"what": metric_name(metric), "predicted": predicted_text, "measured": measured_text, "verdict": verdict})
    for what, unit, predicted, value in (
        ("time", "s", expected.seconds, facts.seconds),
        ("latency of one image", "ms", expected.latency_ms, facts.latency_ms),
        ("size", "MiB", expected.size_mib, facts.size_mib),
    ):
        if predicted and value is not None:
            factor = value / predicted
            verdict = "as predicted, within a quarter" if 0.8 <= factor <= 1.25 else f"{factor:.2g} times the prediction"
            rows.append(
                {"what": what, "predicted": _amount(predicted, unit), "measured": _amount(value, unit), "verdict": verdict}
            )
    return rows


def _amount(value: float, unit: str) -> str:
    """Format with three significant digits."""
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _curves(facts: ReportFacts, kind: str) -> list[Line]:
    """Return every column of the training curves whose name contains ``kind``, by epoch."""
    rows = facts.fit.curves
    lines: list[Line] = []
    for name in dict.fromkeys(key for row in rows for key in row if kind in key):
        cells = [(float(epoch), row.get(name)) for epoch, row in enumerate(rows, start=1)]
        points = [(epoch, value) for epoch, value in cells if isinstance(value, int | float)]
        if len(points) > 1:
            lines.append((name.replace("_", " "), points))
    return lines
