"""Blobs that describe a model: test predictions and the list of images. The model predicts without them.

``predictions``: ``image_digest`` uint8 ``(N, 32)``, the sha256 of each test image; ``label`` int64 ``(N,)``, the true class;
``probability`` float32 ``(N, C)``, from 0 to 1, with classes in the order of the manifest.

``images``: ``image_digest`` uint8 ``(N, 32)``; ``label`` int64 ``(N,)``; ``part`` uint8 ``(N,)``, the split: 0 train,
1 validation, 2 test. Versions made from the same data and splits share this blob.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from automl_tl_registry.errors import InvalidBlobError
from automl_tl_registry.tensors import read_header, read_tensors
from automl_tl_registry.values import Facts, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SPLITS",
    "ImagesDifference",
    "Predictions",
    "check_role",
    "compare_images",
    "read_images",
    "read_predictions",
]

SPLITS: Final = ("train", "validation", "test")


def check_role(role: str, path: Path, facts: Facts) -> None:
    """Check that a file is valid safetensors and has the form that its role requires.

    Args:
        role: role of the blob; weights may have any tensors, evidence has a fixed form.
        path: the file.
        facts: facts of the version, for its classes.

    Raises:
        SourceNotFoundError: the file does not exist or is unreadable.
        InvalidBlobError: the file does not fit its role.
    """
    read_header(path)
    if role == "predictions":
        read_predictions(path, facts.classes)
    elif role == "images":
        read_images(path, facts.classes)


# -------------------------------------------------------------------------------------------------------- predictions


@dataclass(frozen=True)
class Predictions:
    """Test predictions of one version; the arrays are those of the blob."""

    classes: tuple[str, ...]
    image_digest: NDArray[Any]
    label: NDArray[Any]
    probability: NDArray[Any]


def read_predictions(path: Path, classes: Sequence[str]) -> Predictions:
    """Read the predictions of a version.

    Args:
        path: the ``predictions`` blob.
        classes: classes of the version, in order.

    Returns:
        The predictions, with labels and probabilities in range.

    Raises:
        InvalidBlobError: a tensor is missing, misshapen or out of range.
    """
    rows = {"image_digest": ("U8", (32,)), "label": ("I64", ()), "probability": ("F32", (len(classes),))}
    digest, label, probability = read_tensors(path, rows)
    if label.size and not (label.min() >= 0 and label.max() < len(classes)):
        raise InvalidBlobError(path, f"labels must be 0 to {len(classes) - 1}, found {label.min()} to {label.max()}")
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1.0001):  # NaN fails both comparisons
        raise InvalidBlobError(path, "probabilities must be between 0 and 1")
    return Predictions(tuple(classes), digest, label, probability)


# ------------------------------------------------------------------------------------------------------------- images


class ImagesDifference(Value):
    """Digests of images by split: that of the newer version if it has the image."""

    added: dict[str, tuple[str, ...]]
    removed: dict[str, tuple[str, ...]]
    relabeled: tuple[str, ...]
    moved: tuple[str, ...]


def read_images(path: Path, classes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Read the images of a version.

    Args:
        path: the ``images`` blob.
        classes: classes of the version, in order.

    Returns:
        Class and split by digest (hexadecimal).

    Raises:
        InvalidBlobError: a tensor is missing, misshapen or out of range.
    """
    digest, label, split = read_tensors(path, {"image_digest": ("U8", (32,)), "label": ("I64", ()), "part": ("U8", ())})
    if label.size and not (label.min() >= 0 and label.max() < len(classes) and split.max() < len(SPLITS)):
        raise InvalidBlobError(path, f"labels must be 0 to {len(classes) - 1} and splits 0 to {len(SPLITS) - 1}")
    rows = zip(digest, label.tolist(), split.tolist(), strict=True)
    return {key.tobytes().hex(): (classes[number], SPLITS[place]) for key, number, place in rows}


def compare_images(before: Mapping[str, tuple[str, str]], after: Mapping[str, tuple[str, str]]) -> ImagesDifference:
    """Compare the images of two versions.

    Args:
        before: class and split by digest, of the older version.
        after: class and split by digest, of the newer version.

    Returns:
        Images that were added, removed, relabeled or moved to another split.
    """
    shared = sorted(before.keys() & after.keys())
    return ImagesDifference(
        added=_by_split(after, after.keys() - before.keys()),
        removed=_by_split(before, before.keys() - after.keys()),
        relabeled=tuple(key for key in shared if before[key][0] != after[key][0]),
        moved=tuple(key for key in shared if before[key][1] != after[key][1]),
    )


def _by_split(images: Mapping[str, tuple[str, str]], keys: set[str]) -> dict[str, tuple[str, ...]]:
    digests = {split: tuple(sorted(key for key in keys if images[key][1] == split)) for split in SPLITS}
    return {split: each for split, each in digests.items() if each}
