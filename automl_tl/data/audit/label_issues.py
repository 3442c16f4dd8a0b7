"""Findings from features: labels that are probably wrong, and images that resemble no other.

Confident learning (Northcutt, Jiang, Chuang 2021, arXiv 1911.00068): a label is an issue if a model that did not learn from
the image is more confident of another class than it usually is of that class's own images. The authors' library, cleanlab,
depends on pandas for a method of these few lines (decision 14).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from automl_tl.data.audit.near_duplicates import NeighborSearch
from automl_tl.data.audit.registration import unit_rows
from automl_tl.values import DataReport, DatasetIndex, Finding

NUM_NEIGHBORS: Final = 5
FAR: Final = 4.0  # interquartile ranges above the third quartile; Tukey's fences are at 1.5 and, for far out, 3
CODES: Final = ("label_issues", "outliers")
SEVERITIES: Final = ("error", "warning", "info")


class LabelIssue(NamedTuple):
    """The image at ``position`` looks like class ``predicted``; its own label has the probability ``own``."""

    own: float
    position: int
    predicted: int


def find_label_issues(labels: ArrayLike, probabilities: ArrayLike) -> list[LabelIssue]:
    """Find labels that are probably wrong, the least probable first.

    That order finds more planted errors than the margin to the other class does (benchmarks/data_label_errors.py).

    Args:
        labels: class numbers ``(N,)``.
        probabilities: ``(N, C)``, each row from a model that did not learn from that image.
    """
    classes, p = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    if not len(classes):
        return []
    own = p[np.arange(len(classes)), classes]
    usual = np.array([own[classes == label].mean() if (classes == label).any() else np.inf for label in range(p.shape[1])])
    confident = np.where(p >= usual, p, -1.0)
    predicted = confident.argmax(axis=1)
    wrong = np.flatnonzero((predicted != classes) & (confident.max(axis=1) > own))
    return sorted(LabelIssue(float(own[at]), int(at), int(predicted[at])) for at in wrong)


def audit_features(
    index: DatasetIndex, report: DataReport, *, paths: Sequence[str], features: ArrayLike, probabilities: ArrayLike
) -> DataReport:
    """Add label issues and outliers to ``report``, most suspicious first. Nothing is left out because of them.

    Images that a person has decided about are not listed again.

    Args:
        index: what was scanned; its classes are the order of the columns of ``probabilities``.
        report: its audit; findings of an earlier call are replaced.
        paths: of N images of the index, in the order of the rows.
        features: ``(N, D)``, from any encoder.
        probabilities: ``(N, C)``, out of fold: from models that did not learn from the image.
    """
    label_of = {image.path: image.label for image in index.images}
    number_of = {name: number for number, name in enumerate(index.classes)}
    issues = find_label_issues([number_of[label_of[path]] for path in paths], probabilities)
    others = [finding for finding in report.findings if finding.code not in CODES]
    decided = report.corrections.decided if report.corrections else frozenset()
    issues = [issue for issue in issues if paths[issue.position] not in decided]
    outliers = [path for path in find_outliers(paths, np.asarray(features, dtype=np.float32)) if path not in decided]
    findings = [*others, *_label_issues(index, paths, issues), *_outliers(outliers)]
    ranked = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return report.model_copy(update={"findings": tuple(ranked)})


def _label_issues(index: DatasetIndex, paths: Sequence[str], issues: Sequence[LabelIssue]) -> Iterator[Finding]:
    if issues:
        yield Finding(
            code="label_issues",
            severity="warning",
            title=f"Images that look like another class than their label says: {len(issues)}",
            why="A model that did not learn from them is more confident of the other class than it usually is. Wrong labels "
            "teach errors and, in the test split, count right answers as wrong.",
            advice="Review them, most suspicious first; correct the label where it is wrong.",
            paths=tuple(paths[issue.position] for issue in issues),
            facts={paths[issue.position]: index.classes[issue.predicted] for issue in issues},
        )


def find_outliers(paths: Sequence[str], features: NDArray[np.float32]) -> list[str]:
    """Find images that resemble no other, the most distant first.

    Args:
        paths: of N images.
        features: ``(N, D)``.
    """
    if len(paths) < 4 * NUM_NEIGHBORS:
        return []
    rows = unit_rows(features[:, None, :])
    _, similarity = NeighborSearch(rows).nearest(rows, NUM_NEIGHBORS + 1)
    distance = 1 - np.maximum(similarity[:, 1:], -1).mean(axis=1)
    lower, upper = np.quantile(distance, [0.25, 0.75])
    return [paths[at] for at in np.argsort(-distance, kind="stable") if distance[at] > upper + FAR * max(upper - lower, 1e-6)]


def _outliers(far: Sequence[str]) -> Iterator[Finding]:
    if far:
        yield Finding(
            code="outliers",
            severity="info",
            title=f"Images that resemble no other: {len(far)}",
            why="They may have come in by mistake, or be the only ones of their kind.",
            advice="Review them; delete what doesn't belong, add images like those that do.",
            paths=tuple(far),
        )
