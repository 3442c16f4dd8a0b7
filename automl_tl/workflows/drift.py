"""Drift: do new images still look like the images that a model was trained on?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from automl_tl.errors import NoImagesError
from automl_tl.evaluation.drift import Drift, estimate_drift
from automl_tl.models.image_inputs import find_images
from automl_tl.models.predictor import Predictor
from automl_tl.models.rows import copy_new
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.workflows.model import load


def drift(
    model: str,
    images: Sequence[str],
    *,
    copy_to: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> Drift:
    """Compare new images with the training images of a model.

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        images: folders, patterns, lists or archives of new images.
        copy_to: copy the most unusual images into this folder.
        registry: folder of the registry; by default the user's.
        progress: receives progress and warnings.

    Raises:
        RegistryError: no such version, or a damaged one.
        NoImagesError: none of the images can be read.
    """
    opened, inputs = load(model, registry=registry), find_images(list(images))
    predictor = Predictor.for_many(opened.classifier, len(inputs), progress)
    paths, features = [], []
    with progress.track("extracting features", len(inputs)) as advance:
        for path, row in predictor.features_of(inputs, inputs.read):
            advance(1)
            if row is not None:
                paths.append(path)
                features.append(row)
    if not paths:
        raise NoImagesError("The folder", f"{len(inputs)} files, none of them readable")
    stacked = np.stack(features)
    predicted = opened.classifier.probabilities(torch.from_numpy(stacked)).argmax(dim=1).numpy()
    report = estimate_drift(opened.reference, stacked, predicted, tuple(paths), opened.classes)
    for example in report.examples if copy_to else ():
        copy_new(Path(copy_to or ""), example.path, inputs.read(example.path))
    return report
