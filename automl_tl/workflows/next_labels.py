"""Next labels: the unlabeled images whose labels would teach a model the most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from automl_tl.data.image_inputs import NamedImage
from automl_tl.data.in_memory import Images, open_images
from automl_tl.errors import DataError
from automl_tl.evaluation.next_labels import choose_diverse_uncertain
from automl_tl.models.predictor import Predictor
from automl_tl.models.rows import copy_new
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import Fraction, Value
from automl_tl.workflows.model import load
from automl_tl_registry.contents import read_images

METHOD = (
    "Of the images with the smallest margins between the two most probable classes, those nearest to the centers of as many "
    "clusters (Zhdanov 2019); the smallest margin first."
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
    num_copies: int = Field(description="images left out because another image has the same bytes")
    num_unreadable: int
    method: str
    images: tuple[NextLabel, ...]


def next_labels(
    model: str,
    images: Images,
    *,
    num: int = 50,
    out: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> NextLabels:
    """Choose the images to label next, for the next fit of a model to gain the most.

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        images: unlabeled images, in any form that ``Model.predict`` takes: a folder, pattern, list or archive, arrays ...
        num: number of images to choose.
        out: copy the chosen images into this folder.
        registry: folder of the registry; by default the user's.
        progress: receives progress.

    Raises:
        RegistryError: no such version, or a damaged one.
        DataError: none of the images is readable and new to the model.
    """
    # 1) Extract the features of every image, and leave out those that the model has seen with a label.
    opened_images, num_files = open_images(images)
    digests: dict[str, str] = {}  # by name, noted when an image is read
    opened_images = (NamedImage(image.name, partial(_read, image, digests)) for image in opened_images)
    opened = load(model, registry=registry)
    registered = read_images(opened.view.paths["images"], opened.view.facts.classes)
    predictor, opened_images = Predictor.for_images(opened.classifier, opened_images, progress)
    new: dict[str, tuple[NamedImage, NDArray[np.float32]]] = {}  # by digest
    counts = Counter[str]()
    with progress.track("extracting features", num_files) as advance:
        for image, row in predictor.features_of(opened_images):
            advance(1)
            digest = "" if row is None else sha256(image.read()).hexdigest()
            counts[
                "unreadable" if row is None else "known" if digest in registered else "copies" if digest in new else "new"
            ] += 1
            if row is not None and digest not in registered:
                new.setdefault(digest, (image, row))
    if not new:
        raise DataError(
            f"No image to label: of {counts.total()} files, {counts['known']} are labeled already for {opened.ref} and "
            f"{counts['unreadable']} are unreadable. Expected images that the model was not trained or tested on."
        )
    # 2) Choose.
    candidates, features = [image for image, _ in new.values()], np.stack([row for _, row in new.values()])
    probabilities = opened.classifier.probabilities(torch.from_numpy(features)).numpy()
    chosen = choose_diverse_uncertain(features, probabilities, num)
    # 3) Describe the choice, and copy it.
    ood_scores = opened.reference.ood_score(features[chosen])
    for position in chosen if out else ():
        copy_new(Path(out or ""), candidates[position].name, candidates[position].read())
    return NextLabels(
        model=opened.ref,
        num_images=len(new),
        num_known=counts["known"],
        num_copies=counts["copies"],
        num_unreadable=counts["unreadable"],
        method=METHOD,
        images=tuple(
            _describe(candidates[position].name, probabilities[position], opened.classes, ood_score)
            for position, ood_score in zip(chosen, ood_scores, strict=True)
        ),
    )


def _read(image: NamedImage, digests: dict[str, str]) -> bytes:
    """Read an image and note the digest of its bytes."""
    content = image.read()
    digests[image.name] = sha256(content).hexdigest()
    return content


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
