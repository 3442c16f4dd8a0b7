"""The optional ``images`` blob: which images a version was made and tested with, so that ``diff`` can tell what was added.

``image_digest`` uint8 ``(N, 32)``: sha256 of the image; ``label`` int64 ``(N,)``: its class; ``part`` uint8 ``(N,)``: 0 train,
1 validation, 2 test. Versions made from the same data and split share the blob.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from automl_tl_registry.errors import InvalidBlobError
from automl_tl_registry.header import Header, read_header, read_tensor
from automl_tl_registry.values import Value

__all__ = ["PARTS", "ImagesDifference", "compare_images", "read_images"]

PARTS: Final = ("train", "validation", "test")


class ImagesDifference(Value):
    """Digests of images by part (that of the newer version, if it has the image)."""

    added: dict[str, tuple[str, ...]]
    removed: dict[str, tuple[str, ...]]
    relabeled: tuple[str, ...]
    moved: tuple[str, ...]


def _check_shapes(path: Path, header: Header) -> None:
    """Raise InvalidBlobError unless the file has the three tensors in the right shapes."""
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in header.tensors.items()}
    num_images = found.get("label", ("", (0,)))[1][:1]
    expected = {"image_digest": ("U8", (*num_images, 32)), "label": ("I64", num_images), "part": ("U8", num_images)}
    for name, (dtype, shape) in expected.items():
        if found.get(name) != (dtype, shape):
            raise InvalidBlobError(path, f"images need {name} as {dtype} {list(shape)}, found {found.get(name, 'none')}")


def read_images(path: Path, classes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Class and part by digest.

    Raises:
        InvalidBlobError: tensors are missing, misshapen or out of range.
    """
    header = read_header(path)
    _check_shapes(path, header)
    digest, label, part = (read_tensor(path, header, name) for name in ("image_digest", "label", "part"))
    if label.size and not (label.min() >= 0 and label.max() < len(classes) and part.max() < len(PARTS)):
        raise InvalidBlobError(path, f"labels should be 0 to {len(classes) - 1} and parts 0 to {len(PARTS) - 1}")
    rows = zip(digest, label.tolist(), part.tolist(), strict=True)
    return {key.tobytes().hex(): (classes[number], PARTS[place]) for key, number, place in rows}


def compare_images(before: Mapping[str, tuple[str, str]], after: Mapping[str, tuple[str, str]]) -> ImagesDifference:
    """What came, went, changed its class or its part."""
    shared = sorted(before.keys() & after.keys())
    return ImagesDifference(
        added=_by_part(after, after.keys() - before.keys()),
        removed=_by_part(before, before.keys() - after.keys()),
        relabeled=tuple(key for key in shared if before[key][0] != after[key][0]),
        moved=tuple(key for key in shared if before[key][1] != after[key][1]),
    )


def _by_part(images: Mapping[str, tuple[str, str]], keys: set[str]) -> dict[str, tuple[str, ...]]:
    found = {part: tuple(sorted(key for key in keys if images[key][1] == part)) for part in PARTS}
    return {part: digests for part, digests in found.items() if digests}
