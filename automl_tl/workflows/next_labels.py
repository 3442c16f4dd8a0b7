"""Next labels: the unlabeled images whose labels would teach a model the most."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from automl_tl.errors import DataError
from automl_tl.evaluation.next_labels import order_by_value
from automl_tl.models.image_inputs import find_images
from automl_tl.models.predictor import Predictor
from automl_tl.models.rows import copy_new
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import Fraction, Value
from automl_tl.workflows.model import load
from automl_tl_registry.contents import read_images

METHOD = (
    "Each image has the largest product of uncertainty (1 minus the margin between the two most probable classes) and "
    "distance to the nearest image that is labeled or listed above it."
)


class NextLabel(Value):
    """An unlabeled image and what the model makes of it."""

    path: str
    label: str = Field(description="most probable class")
    probability: Fraction
    runner_up: str = Field(description="second most probable class")
    runner_up_probability: Fraction
    ood_score: float = Field(description="multiple of the threshold; above 1 is out of distribution")


class NextLabels(Value):
    """The images to label next, the most valuable first."""

    model: str = Field(description="name@version")
    num_images: int = Field(description="readable images that the model was not trained on")
    num_known: int = Field(description="images left out because the model was trained or tested on them")
    num_unreadable: int
    method: str
    images: tuple[NextLabel, ...]


def next_labels(
    model: str,
    images: Sequence[str],
    *,
    num: int = 50,
    copy_to: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> NextLabels:
    """Choose the images to label next, for the next fit of a model to gain the most.

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        images: folders, patterns, lists or archives of unlabeled images.
        num: number of images to choose.
        copy_to: copy the chosen images into this folder.
        registry: folder of the registry; by default the user's.
        progress: receives progress and warnings.

    Raises:
        RegistryError: no such version, or a damaged one.
        DataError: none of the images is readable and new to the model.
    """
    # 1) Extract the features of every image, and leave out those that the model has seen with a label.
    opened, inputs = load(model, registry=registry), find_images(list(images))
    registered = read_images(opened.view.paths["images"], opened.view.facts.classes)
    digests: dict[str, str] = {}

    def read(path: str) -> bytes:
        content = inputs.read(path)
        digests[path] = sha256(content).hexdigest()
        return content

    paths, rows, num_known, num_unreadable = [], [], 0, 0
    with progress.track("extracting features", len(inputs)) as advance:
        for path, row in Predictor.for_many(opened.classifier, len(inputs), progress).features_of(inputs, read):
            advance(1)
            if row is None:
                num_unreadable += 1
            elif digests.pop(path) in registered:
                num_known += 1
            else:
                paths.append(path)
                rows.append(row)
    if not paths:
        raise DataError(
            f"{', '.join(images)}: no image to label ({len(inputs)} files: {num_known} already labeled for {opened.ref}, "
            f"{num_unreadable} unreadable). Expected images that the model was not trained or tested on."
        )
    # 2) Order them.
    features = np.stack(rows)
    probabilities = opened.classifier.probabilities(torch.from_numpy(features)).numpy()
    order = order_by_value(features, probabilities, opened.reference.features, num)
    # 3) Describe the first, and copy them.
    ood_scores = opened.reference.ood_score(features[order])
    chosen = tuple(
        _describe(paths[at], probabilities[at], opened.classes, score) for at, score in zip(order, ood_scores, strict=True)
    )
    for one in chosen if copy_to else ():
        copy_new(Path(copy_to or ""), one.path, inputs.read(one.path))
    if num_unreadable:
        progress.warn(f"{num_unreadable} of {len(inputs)} files cannot be read as images and were left out")
    return NextLabels(
        model=opened.ref,
        num_images=len(paths),
        num_known=num_known,
        num_unreadable=num_unreadable,
        method=METHOD,
        images=chosen,
    )


def _describe(path: str, probabilities: NDArray[np.float32], classes: Sequence[str], ood_score: float) -> NextLabel:
    first, second = np.argsort(-probabilities, kind="stable")[:2]
    return NextLabel(
        path=path,
        label=classes[first],
        probability=min(float(probabilities[first]), 1.0),
        runner_up=classes[second],
        runner_up_probability=min(float(probabilities[second]), 1.0),
        ood_score=float(ood_score),
    )
