"""Predict: the class of each image, with abstention and out-of-distribution detection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from automl_tl.evaluation.abstention import AbstentionPolicy, make_policy
from automl_tl.models.image_inputs import find_images
from automl_tl.models.predictor import Predictor
from automl_tl.models.rows import copy_by_label
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import Prediction
from automl_tl.workflows.model import load


def predict(
    model: str,
    images: Sequence[str],
    *,
    max_error: float | None = None,
    reject_ood: bool = True,
    copy_to: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> Iterator[Prediction]:
    """Predict images with a registered model, one ``Prediction`` per image, in order.

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        images: files, folders, patterns, lists, archives, or ``-`` for standard input.
        max_error: abstain so that, with 95% confidence, at most this fraction of the returned labels is wrong.
        reject_ood: abstain on images unlike anything in training.
        copy_to: copy each image into a folder named by its label, below this one.
        registry: folder of the registry; by default the user's.
        progress: receives progress, and a count at the end.

    Raises:
        RegistryError: no such version, or a damaged one.
        UnsatisfiableConstraintsError: no threshold keeps ``max_error``.
    """
    inputs, opened = find_images(list(images)), load(model, registry=registry)
    policy = make_policy(opened.reference, opened.held_out, max_error)
    if policy.guarantee:
        progress.info(policy.guarantee.words)
    predictor = Predictor.for_many(opened.classifier, len(inputs), progress)
    rows = predictor.predict(inputs, inputs.read, policy=policy if reject_ood else AbstentionPolicy(policy.guarantee, None))
    if copy_to:
        rows = copy_by_label(rows, inputs.read, Path(copy_to), opened.classes)
    return _track(rows, len(inputs), progress)


def _track(rows: Iterator[Prediction], total: int, progress: Progress) -> Iterator[Prediction]:
    answered = abstained = errors = 0
    with progress.track("predicting", total) as advance:
        for row in rows:
            yield row
            advance(1)
            errors += row.error is not None
            abstained += row.abstained is not None
            answered += row.error is None and row.abstained is None
    progress.info(f"{total} files: {answered} predicted, {abstained} abstained, {errors} unreadable")
