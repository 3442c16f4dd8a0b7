"""The registry's own files inside a version: the manifest, and the blobs that describe a model.

``manifest``: a safetensors file without tensors, with the manifest as JSON in its header. It is separate from the head, so that
the head keeps the bytes and digest that the trainer gave it and can be shared between versions.

``predictions``: ``image_digest`` uint8 ``(N, 32)``, the sha256 of each test image; ``label`` int64 ``(N,)``, the true class;
``probability`` float32 ``(N, C)``, from 0 to 1, with classes in the order of the manifest.

``images``: ``image_digest`` uint8 ``(N, 32)``; ``label`` int64 ``(N,)``; ``part`` uint8 ``(N,)``, the split: 0 train,
1 validation, 2 test. Versions made from the same data and splits share this blob.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from automl_tl_registry.errors import DamagedManifestError, InvalidBlobError
from automl_tl_registry.journal import canonical
from automl_tl_registry.tensors import encode_metadata, header_of, read_header, read_tensors
from automl_tl_registry.values import Facts, Manifest, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MAX_MANIFEST_BYTES",
    "SPLITS",
    "ImagesDifference",
    "Predictions",
    "check_role",
    "compare_images",
    "decode_manifest",
    "encode_manifest",
    "is_manifest",
    "read_images",
    "read_manifest",
    "read_predictions",
]

# -------------------------------------------------------------------------------------------------------------- manifest


FORMAT: Final = "automl_tl.manifest/1"
MAX_MANIFEST_BYTES: Final = 16_000_000  # ImageNet's 1000 classes with a per-class table take 0.2 MB


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest blob; the same manifest gives the same bytes."""
    return encode_metadata({"format": FORMAT, "manifest": canonical(manifest.model_dump(mode="json"))})


def is_manifest(path: Path) -> bool:
    """Return whether a blob declares itself a manifest."""
    try:
        with path.open("rb") as stream:
            start = stream.read(256)
    except OSError:
        return False
    return f'"format":"{FORMAT}"'.encode() in start


def read_manifest(path: Path) -> Manifest:
    """Read a manifest blob."""
    with path.open("rb") as stream:
        return decode_manifest(stream.read(MAX_MANIFEST_BYTES + 1), path)


def decode_manifest(content: bytes, path: Path) -> Manifest:
    """Decode the bytes of a manifest blob."""
    if len(content) > MAX_MANIFEST_BYTES:
        raise DamagedManifestError(str(path), f"it has more than {MAX_MANIFEST_BYTES} bytes")
    try:
        text = header_of(content, path).metadata["manifest"]
        return Manifest.model_validate(json.loads(text))
    except KeyError as error:
        raise DamagedManifestError(str(path), "its header contains no manifest") from error
    except ValidationError as error:
        raise DamagedManifestError(str(path), _summary(error)) from error
    except (InvalidBlobError, ValueError, RecursionError) as error:
        raise DamagedManifestError(str(path), str(error)[:300]) from error


def _summary(error: ValidationError) -> str:
    """Summarize the first problems on one line, without the values, which are not trusted."""
    lines = [f"{'.'.join(str(part)[:40] for part in each['loc'])}: {each['msg']}" for each in error.errors(include_input=False)]
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    return ascii("; ".join(lines[:3]) + more)[1:-1]


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
    """Read the predictions of a version."""
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
    """Read the images of a version."""
    digest, label, split = read_tensors(path, {"image_digest": ("U8", (32,)), "label": ("I64", ()), "part": ("U8", ())})
    if label.size and not (label.min() >= 0 and label.max() < len(classes) and split.max() < len(SPLITS)):
        raise InvalidBlobError(path, f"labels must be 0 to {len(classes) - 1} and splits 0 to {len(SPLITS) - 1}")
    rows = zip(digest, label.tolist(), split.tolist(), strict=True)
    return {key.tobytes().hex(): (classes[number], SPLITS[place]) for key, number, place in rows}


def compare_images(before: Mapping[str, tuple[str, str]], after: Mapping[str, tuple[str, str]]) -> ImagesDifference:
    """Compare the images of two versions."""
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
