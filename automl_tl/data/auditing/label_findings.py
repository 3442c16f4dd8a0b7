"""Findings that need a network's eyes: labels that are probably wrong, and images that resemble no other.

Confident learning (Northcutt, Jiang, Chuang 2021, arXiv 1911.00068), a page of numpy: an image is suspected when a model
that never saw it is more confident of another class than it usually is of that class's own images. The library that the
authors maintain, cleanlab (Apache-2.0), brings pandas for a method of these few lines (decision 14).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from automl_tl.data.auditing.registering import unit_rows
from automl_tl.data.auditing.searching import nearest
from automl_tl.values import DataReport, DatasetIndex, Finding

__all__ = ["SuspectedLabel", "audit_features", "suspect_labels"]

Floats = NDArray[np.float32]

NUM_NEIGHBORS: Final = 5
FAR: Final = 4.0  # interquartile ranges above the third quartile; 1.5 is Tukey's fence for a few, 3 for far out
CODES: Final = ("suspected_labels", "outliers")


@dataclass(frozen=True, slots=True)
class SuspectedLabel:
    """The image at ``position`` looks like class ``looks_like``; its own label has the probability ``own``."""

    position: int
    looks_like: int
    own: float


def suspect_labels(labels: ArrayLike, probabilities: ArrayLike) -> list[SuspectedLabel]:
    """Images whose label is probably wrong, the least probable label first.

    That order finds more planted errors than the margin to the other class does (benchmarks/data_label_errors.py).

    Args:
        labels: class numbers ``(N,)``.
        probabilities: ``(N, C)``, each row from a model that did not learn from that image.
    """
    given, p = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    if not len(given):
        return []
    own = p[np.arange(len(given)), given]
    usual = np.array([own[given == label].mean() if (given == label).any() else np.inf for label in range(p.shape[1])])
    confident = np.where(p >= usual, p, -1.0)
    looks_like = confident.argmax(axis=1)
    wrong = np.flatnonzero((looks_like != given) & (confident.max(axis=1) > own))
    suspected = (SuspectedLabel(int(at), int(looks_like[at]), float(own[at])) for at in wrong)
    return sorted(suspected, key=lambda one: (one.own, one.position))


def audit_features(
    index: DatasetIndex, report: DataReport, *, paths: Sequence[str], features: ArrayLike, probabilities: ArrayLike
) -> DataReport:
    """``report`` with what features tell: suspected labels and outliers, most suspicious first. Nothing is left out for it.

    Args:
        index: what was scanned; its classes are the order of the columns of ``probabilities``.
        report: what the audit said; findings of an earlier call are replaced.
        paths: of N images of the index, in the order of the rows.
        features: ``(N, D)``, from any encoder.
        probabilities: ``(N, C)``, out of fold: from models that did not learn from the image.
    """
    label_of = {image.path: image.label for image in index.images}
    number_of = {name: number for number, name in enumerate(index.classes)}
    labels = [number_of[label_of[path]] for path in paths]
    suspected = suspect_labels(labels, probabilities)
    found = [*_suspected(index, paths, suspected), *_outliers(paths, np.asarray(features, dtype=np.float32))]
    kept = [finding for finding in report.findings if finding.code not in CODES]
    order = ("error", "warning", "info")
    findings = sorted([*kept, *found], key=lambda finding: order.index(finding.severity))
    return report.model_copy(update={"findings": tuple(findings)})


def _suspected(index: DatasetIndex, paths: Sequence[str], suspected: Sequence[SuspectedLabel]) -> list[Finding]:
    if not suspected:
        return []
    facts: dict[str, float | int | str] = {paths[one.position]: index.classes[one.looks_like] for one in suspected}
    return [
        Finding(
            code="suspected_labels",
            severity="warning",
            title=f"Images that look like another class than their label says: {len(suspected)}",
            why="A model that never saw them is surer of the other class than it usually is. Wrong labels teach errors and, "
            "in the test part, count right answers as wrong.",
            advice="Look at them, the most suspicious are first; correct the label where it is wrong.",
            paths=tuple(paths[one.position] for one in suspected),
            facts=facts,
        )
    ]


def _outliers(paths: Sequence[str], features: Floats) -> list[Finding]:
    if len(paths) < 4 * NUM_NEIGHBORS:
        return []
    rows = unit_rows(features[:, None, :])
    _, similarity = nearest(rows, rows, NUM_NEIGHBORS + 1)
    distance = 1 - np.maximum(similarity[:, 1:], -1).mean(axis=1)
    lower, upper = np.quantile(distance, [0.25, 0.75])
    far = [at for at in np.argsort(-distance, kind="stable") if distance[at] > upper + FAR * max(upper - lower, 1e-6)]
    if not far:
        return []
    return [
        Finding(
            code="outliers",
            severity="info",
            title=f"Images that resemble no other: {len(far)}",
            why="They may have come in by mistake, or be the only ones of their kind.",
            advice="Look at them; delete what doesn't belong, add images like those that do.",
            paths=tuple(paths[at] for at in far),
        )
    ]
