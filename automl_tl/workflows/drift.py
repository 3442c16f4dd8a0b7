"""Drift: do new images still look like the images that a model was trained on?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from automl_tl.data.in_memory import Images, open_images
from automl_tl.errors import NoImagesError
from automl_tl.evaluation.drift import Drift, estimate_drift
from automl_tl.models.predictor import Predictor
from automl_tl.models.rows import copy_new
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.workflows.model import load


def drift(
    model: str,
    images: Images,
    *,
    out: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> Drift:
    """Compare new images with the training images of a model.

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        images: new images, in any form that ``Model.predict`` takes: a folder, pattern, list or archive, arrays ...
        out: copy the most unusual images into this folder.
        registry: folder of the registry; by default the user's.
        progress: receives progress and warnings.

    Raises:
        RegistryError: no such version, or a damaged one.
        NoImagesError: none of the images can be read.
    """
    opened_images, num_images = open_images(images)
    opened = load(model, registry=registry)
    predictor, opened_images = Predictor.for_images(opened.classifier, opened_images, progress)
    names, readers, features = list[str](), dict[str, Callable[[], bytes]](), []
    num_files = 0
    with progress.track("extracting features", num_images) as advance:
        for image, row in predictor.features_of(opened_images):
            advance(1)
            num_files += 1
            if row is not None:
                names.append(image.name)
                features.append(row)
                if out:
                    readers[image.name] = image.read
    if not features:
        raise NoImagesError("The folder", f"{num_files} files, none of them readable")
    stacked = np.stack(features)
    predicted = opened.classifier.probabilities(torch.from_numpy(stacked)).argmax(dim=1).numpy()
    report = estimate_drift(opened.reference, stacked, predicted, tuple(names), opened.classes)
    for example in report.examples if out else ():
        copy_new(Path(out or ""), example.path, readers[example.path]())
    return report
