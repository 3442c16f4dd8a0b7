"""Load a registered model: its version, its classifier, and the reference data kept with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from automl_tl.data.image_inputs import NamedImage
from automl_tl.data.in_memory import Images, open_images
from automl_tl.evaluation.abstention import AbstentionPolicy, make_policy
from automl_tl.evaluation.reference_features import ROLE, ReferenceFeatures, read_reference_features
from automl_tl.models.bundle import Classifier, load_bundle
from automl_tl.models.predictor import Predictor
from automl_tl.models.reference_predictions import check_stand_in
from automl_tl.models.rows import Predictions, copy_by_label
from automl_tl.plugin_host import discover
from automl_tl.runtime.paths import registry_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.quantities import fraction
from automl_tl.values import Prediction
from automl_tl_registry import Registry, VersionView


@dataclass(frozen=True)
class Model:
    """A version from the registry, ready to use; the digest of every file has been checked."""

    view: VersionView
    classifier: Classifier
    reference: ReferenceFeatures

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.view.name}@{self.view.version}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.classifier.facts.classes

    def predict(
        self,
        images: Images,
        *,
        max_error: str | float | None = None,
        reject_ood: bool = True,
        copy_to: str | Path | None = None,
        progress: Progress = QUIET,
    ) -> Predictions:
        """Predict images, one ``Prediction`` per image, in order; unreadable ones become error rows.

        Args:
            images: a path, the bytes of an image file, a Pillow image, a NumPy array of uint8 (``(H, W)``, ``(H, W, C)`` or a
                batch of these), or an iterable of them, which is consumed as the predictions are. A path may be a folder,
                pattern, list or archive.
            max_error: abstain so that, with 95% confidence, at most this fraction (0.05, "5%") of the returned labels is wrong.
            reject_ood: abstain on images unlike anything in training.
            copy_to: copy each image into a folder named by its label, below this one.
            progress: receives progress, and a count at the end.

        Raises:
            UnsatisfiableConstraintsError: no threshold keeps ``max_error``.
            SourceNotFoundError, ImageValueError: what is given as ``images`` is none.
        """
        opened, num_images = open_images(images)
        policy = make_policy(self.reference, self.held_out, None if max_error is None else fraction(max_error))
        if policy.guarantee:
            progress.info(policy.guarantee.words)
        predictor, opened = Predictor.for_images(self.classifier, opened, progress)
        rows = predictor.predict_images(opened, policy=policy if reject_ood else AbstentionPolicy(policy.guarantee, None))
        if copy_to:
            rows = copy_by_label(rows, Path(copy_to), self.classes)
        return Predictions(_track(rows, num_images, progress))

    @property
    def tested(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Labels ``(N,)`` and probabilities ``(N, C)`` of the test split."""
        arrays = load_file(self.view.paths["predictions"])
        return arrays["label"], arrays["probability"]

    @property
    def held_out(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Labels ``(N,)`` and probabilities ``(N, C)``, out of fold or of the validation split, otherwise of the test split."""
        if len(self.reference.held_out_labels):
            return self.reference.held_out_labels, self.reference.held_out_probabilities
        return self.tested


def _track(rows: Iterator[tuple[Prediction, NamedImage]], total: int, progress: Progress) -> Iterator[Prediction]:
    """Yield the predictions and report how many there were; ``total`` is 0 if unknown."""
    answered = abstained = errors = 0
    with progress.track("predicting", total) if total else nullcontext(lambda done: None) as advance:
        for row, _ in rows:
            yield row
            advance(1)
            errors += row.error is not None
            abstained += row.abstained is not None
            answered += row.error is None and row.abstained is None
    num_files = answered + abstained + errors
    progress.info(f"{num_files} files: {answered} predicted, {abstained} abstained, {errors} unreadable")


def load(ref: str, *, registry: str | Path | None = None) -> Model:
    """Load a registered model, ready to predict.

    Args:
        ref: ``name`` (latest), ``name@3`` or ``name@production``.
        registry: folder of the registry; by default the user's.

    Raises:
        RegistryError: no such version, or a damaged one.
        ModelError: no installed plugin builds the backbone, or the substitute predicts something else.
    """
    view, catalog = open_registry(registry).load(ref), discover()
    classifier = load_bundle(view.paths["encoder"], view.paths["head"], catalog)
    if classifier.facts.backbone not in catalog.backbones:  # a substitute must reproduce the reference predictions
        check_stand_in(view.paths, classifier)
    return Model(view, classifier, read_reference_features(view.paths[ROLE]))


def open_registry(folder: str | Path | None) -> Registry:
    """Open the registry in ``folder``, by default the user's."""
    return Registry(Path(folder) if folder else registry_dir())


def remember_training_images(registry: Registry, ref: str, source: Path) -> None:
    """Write down where the training images of a version are on this machine, if that is possible.

    It is no part of the version, which may be exported to others.

    Args:
        registry: holds the version.
        ref: ``name@3``.
        source: folder, table or archive.
    """
    file = _training_images_file(registry, ref)
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(os.fsencode(source.resolve()))


def find_training_images(registry: Registry, ref: str) -> Path | None:
    """Return where the training images of a version were at its fit; ``None`` if it was fitted elsewhere.

    Args:
        registry: holds the version.
        ref: ``name@3``.
    """
    with suppress(OSError):
        return Path(os.fsdecode(_training_images_file(registry, ref).read_bytes()))
    return None


def _training_images_file(registry: Registry, ref: str) -> Path:
    return registry.root / "training_images" / f"{ref}.txt"
