"""Reference features: features of training images that are saved with a model.

They detect out-of-distribution images, show the nearest training images, and reveal drift. The file is safetensors with
float16 features, 2.5 MiB for a thousand images of 1280 features.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from automl_tl.errors import ModelError
from automl_tl.evaluation.arrays import FloatArray, IntArray, unit_length
from automl_tl.evaluation.ood import ood_scores, ood_threshold

__all__ = [
    "MAX_REFERENCE_IMAGES",
    "ROLE",
    "ReferenceFeatures",
    "choose_reference_rows",
    "make_reference_features",
    "read_reference_features",
    "write_reference_features",
]

MAX_REFERENCE_IMAGES: Final = 4000  # 10 MiB at 1280 features; more neighbors hardly sharpen a score
ROLE: Final = "reference_features"  # of the blob in the registry
METADATA_KEY: Final = "automl_tl_reference_features"


@dataclass(frozen=True)
class ReferenceFeatures:
    """Features of training images and predictions for held-out images.

    Attributes:
        features: ``(M, D)``, float16, unit length.
        labels: ``(M,)``, class indices.
        paths: M paths inside the training source.
        threshold: OOD score above which an image is out of distribution.
        held_out_labels: ``(N,)``, class indices of images that the model (or its folds) didn't train on.
        held_out_probabilities: ``(N, C)``, float32, predicted for them; N may be 0.
    """

    features: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int64]
    paths: tuple[str, ...]
    threshold: float
    held_out_labels: npt.NDArray[np.int64]
    held_out_probabilities: npt.NDArray[np.float32]

    def ood_score(self, features: FloatArray) -> npt.NDArray[np.float32]:
        """OOD scores ``(N,)`` of ``features`` ``(N, D)`` as multiples of the threshold; above 1 is out of distribution."""
        scores = ood_scores(features, self.features)
        return np.asarray(scores / self.threshold if np.isfinite(self.threshold) else np.zeros_like(scores), dtype=np.float32)


def choose_reference_rows(num_images: int, *, seed: int) -> list[int]:
    """Choose the training images to keep: all of them, or a random sample.

    Args:
        num_images: number of training images.
        seed: of the sample.

    Returns:
        Ascending positions, at most ``MAX_REFERENCE_IMAGES``.
    """
    rows = np.arange(num_images)
    if num_images > MAX_REFERENCE_IMAGES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_REFERENCE_IMAGES, replace=False))
    return [int(row) for row in rows]


def make_reference_features(
    features: FloatArray, labels: IntArray, paths: tuple[str, ...], *, held_out: tuple[IntArray, FloatArray] | None = None
) -> ReferenceFeatures:
    """Build the reference features of a model.

    Args:
        features: ``(M, D)``, the encoder's output for the training images.
        labels: ``(M,)``, class indices.
        paths: M paths.
        held_out: labels ``(N,)`` and calibrated probabilities ``(N, C)``, out of fold or of validation images.
    """
    unit = unit_length(np.asarray(features)).astype(np.float16)
    held_out_labels, probabilities = held_out or (np.zeros(0, dtype=np.int64), np.zeros((0, 1), dtype=np.float32))
    return ReferenceFeatures(
        features=unit,
        labels=np.asarray(labels, dtype=np.int64),
        paths=paths,
        threshold=ood_threshold(unit),
        held_out_labels=np.asarray(held_out_labels, dtype=np.int64),
        held_out_probabilities=np.asarray(probabilities, dtype=np.float32),
    )


def write_reference_features(file: Path, reference: ReferenceFeatures) -> Path:
    """Write ``reference`` to ``file``; equal values give equal bytes.

    Args:
        file: to write; replaced if it exists.
        reference: what to write.

    Returns:
        ``file``.
    """
    from safetensors.numpy import save_file

    arrays = {
        "features": reference.features,
        "labels": reference.labels,
        "held_out_labels": reference.held_out_labels,
        "held_out_probabilities": reference.held_out_probabilities,
        "threshold": np.array([reference.threshold], dtype=np.float64),
    }
    metadata = {METADATA_KEY: json.dumps(reference.paths)}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file, metadata)
    return file


def read_reference_features(file: Path) -> ReferenceFeatures:
    """Read the reference features in ``file`` without running code from it.

    Raises:
        ModelError: the file holds something else, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            paths = json.loads((opened.metadata() or {})[METADATA_KEY])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - safe_open is not a mapping
        if not isinstance(paths, list) or len(paths) != len(arrays["features"]):
            raise ValueError("its paths don't fit its features")
        return ReferenceFeatures(
            features=arrays["features"],
            labels=arrays["labels"],
            paths=tuple(str(path) for path in paths),
            threshold=float(arrays["threshold"][0]),
            held_out_labels=arrays["held_out_labels"],
            held_out_probabilities=arrays["held_out_probabilities"],
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{file} can't be read as reference features: {error}") from error
