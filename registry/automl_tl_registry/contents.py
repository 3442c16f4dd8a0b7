"""Files of a version: safetensors in general, and the registry's own roles.

``manifest``: a file without tensors, with the manifest as JSON in its header. It is separate from the head, so that the head
keeps the bytes and digest that the trainer gave it. ``predictions`` and ``images``: see the table in docs/registry.md.
``corrections``: a file without tensors, with the corrected labels as JSON in its header, as numbers cannot name classes that
the model does not have. numpy is imported only to read or write arrays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError
from safetensors import SafetensorError, deserialize, safe_open

from automl_tl_registry.errors import DamagedManifestError, InvalidBlobError, NotFoundError
from automl_tl_registry.journal import canonical
from automl_tl_registry.values import Facts, Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

MANIFEST_FILE: Final = "manifest.safetensors"  # names of the files of an export
SUMMARY_FILE: Final = "manifest.json"
CARD_FILE: Final = "MODEL_CARD.md"
SIGNATURE_FILE: Final = "signature.json"

MAX_DIMENSIONS: Final = 32  # numpy 1.26 supports no more
MAX_SIDE: Final = 1 << 48  # elements along one dimension; larger sides occur only in malformed empty tensors
NUMPY_FRAMEWORK: Final = "np"


@dataclass(frozen=True)
class Header:
    """Contents of a safetensors header: dtype and shape by tensor name, and the metadata."""

    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file."""
    try:
        with path.open("rb") as stream:
            # 1) The library compares every number in the header with the size of the file.
            with safe_open(path, NUMPY_FRAMEWORK):
                pass
            # 2) Only then is the header allocated and parsed.
            return _strict_header(stream.read(int.from_bytes(stream.read(8), "little")))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise NotFoundError(f"There is no readable safetensors file at {path}. Specify an existing path.") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise InvalidBlobError(path, str(error)[:300]) from error


def _header_of(content: bytes, path: Path) -> Header:
    """Check the bytes of a safetensors file, read from ``path``, and return its header."""
    try:
        deserialize(content)  # type: ignore[no-untyped-call,unused-ignore]
        return _strict_header(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError, RecursionError) as error:
        raise InvalidBlobError(path, str(error)[:300]) from error


def _strict_header(content: bytes) -> Header:
    fields = json.loads(content, object_pairs_hook=_distinct)
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("__metadata__ is not an object")
    return Header({name: _checked_entry(name, entry) for name, entry in fields.items()}, metadata)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("the header repeats a key")
    return fields


def _checked_entry(name: str, entry: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    shape = entry["shape"]
    if entry.keys() != {"dtype", "shape", "data_offsets"} or len(shape) > MAX_DIMENSIONS or any(s >= MAX_SIDE for s in shape):
        raise ValueError(f"the entry of tensor {name[:80]!a} has unknown fields or an impossible shape")
    return entry["dtype"], tuple(shape)


def encode_metadata(metadata: Mapping[str, str]) -> bytes:
    """Encode a safetensors file without tensors; the same metadata gives the same bytes.

    The library writes several metadata keys in random order, so digests of its files would vary.
    """
    content = json.dumps({"__metadata__": dict(sorted(metadata.items()))}, separators=(",", ":")).encode("ascii")
    content += b" " * (-len(content) % 8)  # the format pads headers to a multiple of eight bytes
    return len(content).to_bytes(8, "little") + content


def read_tensors(path: Path, rows: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[NDArray[Any], ...]:
    """Return tensors that share their first dimension, in the order of ``rows``.

    Args:
        path: a safetensors file.
        rows: dtype and shape of one row by tensor name; every tensor has the shape ``(N, *row)``.

    Raises:
        NotFoundError: the file does not exist or is unreadable.
        InvalidBlobError: a tensor is missing, or its dtype or shape differs.
    """
    tensors = read_header(path).tensors
    num_rows = next((tensors[name][1][:1] for name, (_, row) in rows.items() if not row and name in tensors), (0,))
    for name, (dtype, row) in rows.items():
        if tensors.get(name) != (dtype, (*num_rows, *row)):
            shape = list((*num_rows, *row))
            raise InvalidBlobError(path, f"expected tensor {name} as {dtype} {shape}, found {tensors.get(name, 'none')}")
    with safe_open(path, NUMPY_FRAMEWORK) as file:
        return tuple(file.get_tensor(name) for name in rows)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> Path:
    """Write a safetensors file, and return ``path``; the same tensors give the same bytes.

    The file appears under its name when it is complete. An existing file is replaced, never overwritten, so a process that
    has mapped it keeps the old bytes.

    Args:
        path: the file to write.
        tensors: arrays by name; arrays that share memory are written separately.
    """
    import numpy as np
    from safetensors.numpy import save_file

    draft = path.with_name(f".{path.name}.partial")
    # The library writes the memory of a strided or transposed array as it is, in the wrong order: copy those first.
    save_file({name: np.asarray(array, order="C") for name, array in tensors.items()}, draft)
    draft.replace(path)
    return path


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


def decode_manifest(content: bytes, path: Path | str) -> Manifest:
    """Return the manifest in the bytes of a manifest blob.

    Args:
        content: all bytes of the blob; it is not trusted.
        path: where they come from, for the error.

    Raises:
        DamagedManifestError: too large, or not a valid manifest.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise DamagedManifestError(str(path), f"it has more than {MAX_MANIFEST_BYTES} bytes")
    try:
        values = json.loads(_header_of(content, Path(path)).metadata["manifest"])
        found = str(values.get("format")) if isinstance(values, dict) else ""
        if found != FORMAT and found.startswith(FORMAT.rstrip("1")):
            raise DamagedManifestError(
                str(path), f"it has the format {found[:40]!a}, this version of automl_tl reads {FORMAT}. Upgrade automl_tl"
            )
        return Manifest.model_validate(values)
    except KeyError as error:
        raise DamagedManifestError(str(path), "its header contains no manifest") from error
    except ValidationError as error:
        raise DamagedManifestError(str(path), problems_in(error)) from error
    except (InvalidBlobError, ValueError, RecursionError) as error:
        raise DamagedManifestError(str(path), str(error)[:300]) from error


def problems_in(error: ValidationError) -> str:
    """Summarize the first problems on one line, without the values, which are not trusted."""
    lines = [
        f"{'.'.join(str(part)[:40] for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors(include_input=False)
    ]
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
        NotFoundError: the file does not exist or is unreadable.
        InvalidBlobError: the file does not fit its role.
    """
    read_header(path)
    if role == "predictions":
        read_predictions(path, facts.classes)
    elif role == "images":
        read_images(path, facts.classes)
    elif role == "corrections":
        read_corrected_labels(path)


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
        path: its ``predictions`` blob.
        classes: class names in the order of the model's outputs.

    Returns:
        The predictions: digests ``(N, 32)`` uint8, labels ``(N,)`` int64, probabilities ``(N, C)`` float32.

    Raises:
        InvalidBlobError: a tensor is missing or malformed, or a value is out of range.
    """
    rows = {"image_digest": ("U8", (32,)), "label": ("I64", ()), "probability": ("F32", (len(classes),))}
    digest, label, probability = read_tensors(path, rows)
    if label.size and not (label.min() >= 0 and label.max() < len(classes)):
        raise InvalidBlobError(path, f"labels must be 0 to {len(classes) - 1}, found {label.min()} to {label.max()}")
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1.0001):  # NaN fails both comparisons
        raise InvalidBlobError(path, "probabilities must be between 0 and 1")
    return Predictions(tuple(classes), digest, label, probability)


def read_images(path: Path, classes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Read the images of a version.

    Args:
        path: its ``images`` blob.
        classes: class names in the order of the model's outputs.

    Returns:
        Class name and split by sha256 of the image, hexadecimal.

    Raises:
        InvalidBlobError: a tensor is missing or malformed, or a value is out of range.
    """
    digest, label, split = read_tensors(path, {"image_digest": ("U8", (32,)), "label": ("I64", ()), "part": ("U8", ())})
    if label.size and not (label.min() >= 0 and label.max() < len(classes) and split.max() < len(SPLITS)):
        raise InvalidBlobError(path, f"labels must be 0 to {len(classes) - 1} and splits 0 to {len(SPLITS) - 1}")
    rows = zip(digest, label.tolist(), split.tolist(), strict=True)
    return {key.tobytes().hex(): (classes[number], SPLITS[place]) for key, number, place in rows}


CORRECTIONS_KEY: Final = "corrections"
CorrectedLabel = tuple[str, str, str | None]
"""Path, label that the source gives, and the correct label; None if the image is excluded."""


def write_corrected_labels(path: Path, rows: Iterable[tuple[str, str, str, str | None]]) -> Path:
    """Write the corrected labels of a version, and return ``path``; the same rows give the same bytes.

    Args:
        path: the file to write.
        rows: sha256 of an image (hexadecimal), its path, the label that the source gives, and the correct label; None if the
            image is excluded.
    """
    path.write_bytes(encode_metadata({CORRECTIONS_KEY: json.dumps(sorted(rows, key=lambda row: row[:2]))}))
    return path


def read_corrected_labels(path: Path) -> dict[str, CorrectedLabel]:
    """Return the corrected labels of a version by sha256 of the image, from its ``corrections`` blob.

    Raises:
        InvalidBlobError: the header has no corrections, or malformed ones.
    """
    try:
        rows = json.loads(read_header(path).metadata[CORRECTIONS_KEY])
        return {str(digest): (str(name), str(before), after) for digest, name, before, after in rows}
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InvalidBlobError(path, f"expected corrections in the header, found {str(error)[:100]}") from error
