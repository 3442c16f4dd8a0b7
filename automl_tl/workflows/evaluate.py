"""Models in the registry, put to use: load one, let it look at files, measure it on labeled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from automl_tl import data
from automl_tl.errors import DataError
from automl_tl.runtime.paths import cache_dir, registry_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import Evaluation, ImageRecord, RejectedFile
from automl_tl.workflows.model import load_classifier
from automl_tl_registry import Registry, VersionView

if TYPE_CHECKING:
    from automl_tl.models.predictor import Predictor

__all__ = ["ModelEvaluation", "evaluate_model", "load"]

NUM_NAMED = 3  # of the files that can't be used; --json has all


class ModelEvaluation(Evaluation):
    """A measurement of a registered model, and which of the images it should not, or could not, be measured on."""

    model: str = Field(description="name@version")
    num_learned_from: int | None = Field(description="of num_images; above 0 the figures are too good. None: it isn't known")
    num_unknown_class: int = Field(description="images left out: the model doesn't know their class")
    rejected: tuple[RejectedFile, ...] = Field(description="files left out: they can't be used")


def load(ref: str, *, registry: Path | None = None) -> Predictor:
    """The model that ``ref`` (``name``, ``name@3``, ``name@production``) means now, every file's digest checked.

    Raises:
        RegistryError: there is no such version, or it is damaged.
        ModelError: its backbone can't be built by what is installed, or what stands in for it says something else.
    """
    from automl_tl.models.predictor import Predictor

    return Predictor(load_classifier(Registry(registry or registry_dir()).load(ref)))


def evaluate_model(ref: str, images: Path, *, registry: Path | None = None, progress: Progress = QUIET) -> ModelEvaluation:
    """How well a model does on labeled images: on the test part if the source names one, else on all of them.

    ``progress`` is warned of images that the model learned from, and of those that are not measured on.

    Raises:
        DataError: the images have no label that the model knows.
    """
    from automl_tl.evaluation import evaluate
    from automl_tl.models.predictor import Predictor

    view = Registry(registry or registry_dir()).load(ref)
    classifier = load_classifier(view)
    classes = classifier.facts.classes
    source = data.open_source(images)
    index = data.scan(source, cache_dir=cache_dir(), progress=progress)
    tests = data.images_to_measure_on(index)
    records = _known(tests, classes, images)
    predictor = Predictor.for_many(classifier, len(records), progress)
    number_of = {name: number for number, name in enumerate(classes)}
    labels = np.array([number_of[record.label] for record in records], dtype=np.int64)
    with progress.track("predicting", len(records)) as advance:
        rows = []
        for batch in predictor.probabilities_of([record.path for record in records], source.read):
            rows.append(batch)
            advance(len(batch))
    measured = ModelEvaluation(
        **evaluate(labels, np.concatenate(rows), classes).model_dump(),
        model=f"{view.name}@{view.version}",
        num_learned_from=_num_learned_from(view, records),
        num_unknown_class=len(tests) - len(records),
        rejected=index.rejected,
    )
    _warn(measured, {record.label for record in tests}, progress)
    return measured


def _known(records: tuple[ImageRecord, ...], classes: tuple[str, ...], images: Path) -> tuple[ImageRecord, ...]:
    known = tuple(record for record in records if record.label in classes)
    if not known:
        found = sorted({record.label for record in records})
        raise DataError(f"{images} has the classes {found}, the model knows {list(classes)}. Rename the folders to match.")
    return known


def _num_learned_from(view: VersionView, records: tuple[ImageRecord, ...]) -> int | None:
    """How many of ``records`` are, byte by byte, images that the version learned from; ``None`` if it doesn't say."""
    from automl_tl_registry.images import read_images

    if "images" not in view.paths:
        return None
    parts = {digest: part for digest, (_, part) in read_images(view.paths["images"], view.facts.classes).items()}
    return sum(parts.get(record.digest, "test") != "test" for record in records)


def _warn(measured: ModelEvaluation, labels: set[str], progress: Progress) -> None:
    if measured.num_learned_from:
        progress.warn(
            f"{measured.model} learned from {measured.num_learned_from} of these {measured.num_images} images, so the figures "
            f"are too good. Measure it on others; `tl registry show {measured.model}` has its test accuracy."
        )
    if measured.num_unknown_class:
        strangers = ", ".join(sorted(labels - set(measured.classes)))
        progress.warn(f"{measured.num_unknown_class} images of classes that the model doesn't know are left out: {strangers}")
    if measured.rejected:
        named = ", ".join(f"{file.path} ({file.reason})" for file in measured.rejected[:NUM_NAMED])
        more = ", ..." if len(measured.rejected) > NUM_NAMED else ""
        progress.warn(f"files left out because they can't be used: {len(measured.rejected)}: {named}{more}")
