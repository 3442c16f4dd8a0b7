"""Evaluate: measure a registered model on labeled images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from automl_tl.evaluation import evaluate as compute_metrics
from automl_tl.models.predictor import Predictor
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import AppliedCorrections, Evaluation, Plan, RejectedFile
from automl_tl.workflows.dataset import open_labeled_images
from automl_tl.workflows.model import load
from automl_tl_registry.contents import read_images

MAX_NAMED = 3  # unusable files named in the warning; --json lists all


class ModelEvaluation(Evaluation):
    """An evaluation of a registered model, with the images that were left out or that the model was trained on."""

    model: str = Field(description="name@version")
    num_training_images: int = Field(
        description="how many of num_images the model was trained on; above 0 the metrics are too optimistic."
    )
    num_unknown_class: int = Field(description="images left out because the model does not know their class")
    rejected: tuple[RejectedFile, ...] = Field(description="files left out because they cannot be used")
    corrections: AppliedCorrections | None = Field(default=None, description="what --corrections did; null: not given")


def evaluate(
    model: str,
    images: str | Path,
    *,
    corrections: str | Path | None = None,
    classes_are_folders: bool = False,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> ModelEvaluation:
    """Evaluate a model on labeled images: on the test split if the source names one, otherwise on all of them.

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        images: labeled images; classes are matched by name.
        corrections: file of decisions about single images, as `tl review` writes it; applied by image digest.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.
        registry: folder of the registry; by default the user's.
        progress: receives progress, and a warning about training images and files that were left out.

    Raises:
        DataError: no image has a class that the model knows.
        RegistryError: no such version, or a damaged one.
    """
    # 1) Find the images to measure on, and match their labels with the model's classes.
    opened = load(model, registry=registry)
    labeled = open_labeled_images(
        images, opened.classes, progress, corrections=corrections, classes_are_folders=classes_are_folders
    )
    records = labeled.known
    class_index = {name: number for number, name in enumerate(opened.classes)}
    labels = np.array([class_index[record.label] for record in records], dtype=np.int64)
    # 2) Predict them.
    predictor = Predictor.for_many(opened.classifier, len(records), progress)
    probabilities = predictor.probabilities_of([record.path for record in records], labeled.source.read, progress)
    # 3) Compute the metrics, and warn about everything that limits them.
    plan = Plan.model_validate(opened.view.facts.plan)
    metrics = compute_metrics(
        labels,
        probabilities,
        opened.classes,
        training_imbalance=plan.profile.imbalance,
        metric=plan.constraints.metric,
    )
    registered = read_images(opened.view.paths["images"], opened.view.facts.classes)
    evaluation = ModelEvaluation(
        **metrics.model_dump(),
        model=opened.ref,
        num_training_images=sum(registered.get(record.digest, ("", "test"))[1] != "test" for record in records),
        num_unknown_class=len(labeled.candidates) - len(records),
        rejected=labeled.rejected,
        corrections=labeled.corrections,
    )
    _warn(evaluation, {record.label for record in labeled.candidates}, progress)
    return evaluation


def _warn(evaluation: ModelEvaluation, labels: set[str], progress: Progress) -> None:
    model, num_training = evaluation.model, evaluation.num_training_images
    if num_training:
        progress.warn(
            f"{num_training} of these {evaluation.num_images} images are training images of {model}: the metrics are too "
            f"optimistic. Use other images; `tl registry show {model}` has its test accuracy."
        )
    if evaluation.num_unknown_class:
        unknown = ", ".join(sorted(labels - set(evaluation.classes)))
        progress.warn(f"{evaluation.num_unknown_class} images left out because the model does not know their class: {unknown}")
    if evaluation.rejected:
        named = ", ".join(f"{file.path} ({file.reason})" for file in evaluation.rejected[:MAX_NAMED])
        more = ", ..." if len(evaluation.rejected) > MAX_NAMED else ""
        progress.warn(f"{len(evaluation.rejected)} files left out because they cannot be used: {named}{more}")
