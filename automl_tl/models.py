"""Models in the registry, put to use: load one, let it look at files, measure it on labelled images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from automl_tl import data
from automl_tl.errors import DataError
from automl_tl.home import cache_dir, registry_dir
from automl_tl.story import SILENT, Story
from automl_tl.trust import load_classifier
from automl_tl.values import Evaluation, ImageRecord
from automl_tl_registry import Registry

if TYPE_CHECKING:
    from automl_tl.inference.predictor import Predictor

__all__ = ["evaluate_model", "find_images", "load"]


def load(ref: str, *, registry: Path | None = None) -> Predictor:
    """The model that ``ref`` (``name``, ``name@3``, ``name@production``) means now, every file's digest checked.

    Raises:
        RegistryError: there is no such version, or it is damaged.
        ModelError: its backbone can't be built by what is installed, or what stands in for it says something else.
    """
    from automl_tl.inference.predictor import Predictor

    return Predictor(load_classifier(Registry(registry or registry_dir()).load(ref)))


def find_images(paths: Iterable[Path]) -> Iterator[Path]:
    """The files among ``paths`` as they are, and the image files in the folders among them, sorted, hidden ones left out."""
    for path in paths:
        if path.is_dir():
            inside = (file for file in sorted(path.rglob("*")) if file.is_file())
            yield from (file for file in inside if file.suffix.lower() in data.IMAGE_SUFFIXES and not file.name.startswith("."))
        else:
            yield path


def evaluate_model(ref: str, images: Path, *, registry: Path | None = None, story: Story = SILENT) -> Evaluation:
    """How well a model does on labelled images: on the test part if the source names one, else on all of them.

    Raises:
        DataError: the images have no label that the model knows.
    """
    from automl_tl.evaluation import evaluate

    predictor = load(ref, registry=registry)
    source = data.open_source(images)
    index = data.scan(source, cache_dir=cache_dir(), story=story)
    records = _known(index.images, predictor.classes, images, story)
    number_of = {name: number for number, name in enumerate(predictor.classes)}
    labels = np.array([number_of[record.label] for record in records], dtype=np.int64)
    with story.track("predicting", len(records)) as advance:
        rows = []
        for batch in predictor.probabilities_of([record.path for record in records], source.read):
            rows.append(batch)
            advance(len(batch))
    return evaluate(labels, np.concatenate(rows), predictor.classes)


def _known(records: tuple[ImageRecord, ...], classes: tuple[str, ...], images: Path, story: Story) -> tuple[ImageRecord, ...]:
    tests = tuple(record for record in records if record.part == "test") or records
    strangers = sorted({record.label for record in tests} - set(classes))
    known = tuple(record for record in tests if record.label in classes)
    if not known:
        raise DataError(f"{images} has the classes {strangers}, the model knows {list(classes)}. Rename the folders to match.")
    if strangers:
        story.warn(
            f"{len(tests) - len(known)} images of classes that the model doesn't know are left out: {', '.join(strangers)}"
        )
    return known
