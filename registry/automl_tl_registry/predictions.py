"""The ``predictions`` blob: what a version said about each test image, and who was right.

``image_digest`` uint8 ``(N, 32)``: sha256 of the image; ``label`` int64 ``(N,)``: the true class; ``probability`` float32
``(N, C)``: one row per image, classes in the order of the manifest, each 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl_registry.errors import InvalidBlobError
from automl_tl_registry.header import Header, read_header, read_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Predictions", "read_predictions"]


@dataclass(frozen=True)
class Predictions:
    """Predictions of one version; the three arrays are those of the blob."""

    classes: tuple[str, ...]
    image_digest: NDArray[Any]
    label: NDArray[Any]
    probability: NDArray[Any]


def _check_shapes(path: Path, header: Header, *, num_classes: int) -> None:
    """Raise InvalidBlobError unless the file has the three tensors in the right shapes."""
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in header.tensors.items()}
    num_images = found.get("label", ("", (0,)))[1][:1]
    expected = {
        "image_digest": ("U8", (*num_images, 32)),
        "label": ("I64", num_images),
        "probability": ("F32", (*num_images, num_classes)),
    }
    for name, (dtype, shape) in expected.items():
        if found.get(name) != (dtype, shape):
            raise InvalidBlobError(path, f"predictions need {name} as {dtype} {list(shape)}, found {found.get(name, 'none')}")


def read_predictions(path: Path, classes: Sequence[str]) -> Predictions:
    """Predictions in the file, for the classes of its version.

    Raises:
        InvalidBlobError: tensors are missing, misshapen or out of range.
    """
    header = read_header(path)
    _check_shapes(path, header, num_classes=len(classes))
    digest, label, probability = (read_tensor(path, header, name) for name in ("image_digest", "label", "probability"))
    if label.size and not (label.min() >= 0 and label.max() < len(classes)):
        raise InvalidBlobError(path, f"labels should be 0 to {len(classes) - 1}, found {label.min()} to {label.max()}")
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1.0001):  # NaN fails both
        raise InvalidBlobError(path, "probabilities should be 0 to 1")
    return Predictions(tuple(classes), digest, label, probability)
