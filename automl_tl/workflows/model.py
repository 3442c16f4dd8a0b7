"""A registered model with its reference features and its predictions for held-out images."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from automl_tl import data
from automl_tl.data.decoding import decode
from automl_tl.errors import DataError, ModelError, NoImagesError, UndecodableError
from automl_tl.plugin_host import discover
from automl_tl.runtime.paths import cache_dir, registry_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl_registry import Registry, VersionView

if TYPE_CHECKING:
    from automl_tl.evaluation.abstention import AbstentionPolicy
    from automl_tl.evaluation.drift import Drift
    from automl_tl.evaluation.reference_features import ReferenceFeatures
    from automl_tl.exports import Probe
    from automl_tl.models.bundle import Classifier
    from automl_tl.models.image_inputs import ImageInputs

__all__ = ["Trusted", "export_probe", "load_classifier", "measure_drift", "open_model", "thumbnails"]

MAX_COMPARED = 200  # images that an export is measured on: more sharpen its accuracy, at a second each on a slow runtime


@dataclass(frozen=True)
class Trusted:
    """A version's files, each with its digest checked, and its classifier."""

    view: VersionView
    classifier: Classifier
    reference: ReferenceFeatures | None

    @property
    def held_out(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Labels ``(N,)`` and probabilities ``(N, C)`` of images that the model didn't learn from.

        Out of fold or of validation images if the version has them, else those of the test split.
        """
        if self.reference is not None and len(self.reference.held_out_labels):
            return self.reference.held_out_labels, self.reference.held_out_probabilities
        return self.tested

    @property
    def tested(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Labels ``(N,)`` and probabilities ``(N, C)`` of the test part; N is 0 if the version has none."""
        from safetensors.numpy import load_file

        file = self.view.paths.get("predictions")
        if file is None:
            return np.zeros(0, dtype=np.int64), np.zeros((0, len(self.classifier.facts.classes)), dtype=np.float32)
        arrays = load_file(file)
        return arrays["label"], arrays["probability"]

    def abstention_policy(self, max_error: float | None) -> AbstentionPolicy:
        """Policy that withholds predictions for OOD images and keeps ``max_error``, if one is given.

        Raises:
            UnsatisfiableConstraintsError: ``max_error`` can't be guaranteed.
        """
        from automl_tl.evaluation.abstention import make_policy

        return make_policy(self.reference, self.held_out, max_error)


def open_model(ref: str, *, registry: Path | None = None) -> Trusted:
    """The model that ``ref`` means now.

    Raises:
        RegistryError: there is no such version, or it is damaged.
        ModelError: see ``load_classifier``.
    """
    from automl_tl.evaluation.reference_features import ROLE, read_reference_features

    view = Registry(registry or registry_dir()).load(ref)
    return Trusted(view, load_classifier(view), read_reference_features(view.paths[ROLE]) if ROLE in view.paths else None)


def load_classifier(view: VersionView) -> Classifier:
    """The classifier of a version. One whose backbone was built by a stand-in has predicted the reference images first.

    Raises:
        ModelError: its backbone can't be built by what is installed, or what stands in for it says something else.
    """
    from automl_tl.models.bundle import load_bundle
    from automl_tl.models.reference_predictions import check_stand_in

    catalog = discover()
    classifier = load_bundle(view.paths["encoder"], view.paths["head"], catalog)
    if classifier.facts.backbone not in catalog.backbones:
        check_stand_in(view.paths, classifier)
    return classifier


def thumbnails(source: data.Source, side_px: int = 160) -> Callable[[str], bytes | None]:
    """Gives small JPEGs of the images of ``source`` by their path; ``None`` for what can't be had."""

    def thumbnail(path: str) -> bytes | None:
        try:
            picture = decode(source.read(path), side_px=side_px).image
        except (OSError, KeyError, ValueError, UndecodableError):
            return None
        picture.thumbnail((side_px, side_px))
        target = io.BytesIO()
        picture.save(target, "JPEG", quality=80)
        return target.getvalue()

    return thumbnail


def measure_drift(trusted: Trusted, images: ImageInputs, progress: Progress = QUIET) -> Drift:
    """How the readable ones of ``images`` compare with what the model learned from.

    Raises:
        ModelError: the version has no reference features.
        NoImagesError: none of the images can be read.
    """
    import torch

    from automl_tl.evaluation.drift import estimate_drift
    from automl_tl.models.predictor import Predictor

    if trusted.reference is None:
        raise ModelError(f"{trusted.view.name}@{trusted.view.version} has no reference features. Fit the model again.")
    predictor, paths, features = Predictor.for_many(trusted.classifier, len(images), progress), [], []
    with progress.track("looking", len(images)) as advance:
        for path, row in predictor.features_of(images, images.read):
            advance(1)
            if row is not None:
                paths.append(path)
                features.append(row)
    if not paths:
        raise NoImagesError("The folder", f"{len(images)} files, none of them readable")
    stacked = np.stack(features)
    predicted = trusted.classifier.probabilities(torch.from_numpy(stacked)).argmax(dim=1).numpy()
    return estimate_drift(trusted.reference, stacked, predicted, tuple(paths), trusted.classifier.facts.classes)


def export_probe(trusted: Trusted, images: Path | None, progress: Progress = QUIET) -> Probe:
    """What an export is compared on: up to 200 labeled images of ``images``, else those that the version kept."""
    from safetensors.numpy import load_file

    from automl_tl.exports import Probe
    from automl_tl.models.reference_predictions import IMAGES_ROLE

    if images is None:
        return Probe(trusted.classifier, list(load_file(trusted.view.paths[IMAGES_ROLE])["pixels"]))
    source = data.open_source(images)
    index = data.scan(source, cache_dir=cache_dir(), progress=progress)
    classes = trusted.classifier.facts.classes
    tests = data.images_to_measure_on(index)
    known = [record for record in tests if record.label in classes]
    if not known:
        raise DataError(f"{images} has the classes {sorted({r.label for r in tests})}, the model knows {list(classes)}.")
    order = np.random.default_rng(0).permutation(len(known))[:MAX_COMPARED]
    chosen = [known[row] for row in order]
    pixels = [np.array(decode(source.read(record.path)).image) for record in chosen]
    return Probe(trusted.classifier, pixels, np.array([classes.index(record.label) for record in chosen]))
