"""Predict: the class of each image, with abstention and out-of-distribution detection."""

from __future__ import annotations

from pathlib import Path

from automl_tl.data.in_memory import Images
from automl_tl.models.rows import Predictions
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.workflows.model import load


def predict(
    model: str,
    images: Images,
    *,
    max_error: str | float | None = None,
    reject_ood: bool = True,
    copy_to: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> Predictions:
    """Predict images with a registered model; load it once with ``load`` to predict again and again.

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        images: see ``Model.predict``.
        max_error: abstain so that, with 95% confidence, at most this fraction (0.05, "5%") of the returned labels is wrong.
        reject_ood: abstain on images unlike anything in training.
        copy_to: copy each image into a folder named by its label, below this one.
        registry: folder of the registry; by default the user's.
        progress: receives progress, and a count at the end.

    Raises:
        RegistryError: no such version, or a damaged one.
        UnsatisfiableConstraintsError: no threshold keeps ``max_error``.
        SourceNotFoundError, ImageValueError: what is given as ``images`` is none.
    """
    opened = load(model, registry=registry)
    return opened.predict(images, max_error=max_error, reject_ood=reject_ood, copy_to=copy_to, progress=progress)
