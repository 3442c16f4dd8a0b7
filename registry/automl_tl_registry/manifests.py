"""The manifest blob: a safetensors file without tensors, with the manifest as JSON in its header.

It is separate from the head, so that the head keeps the bytes and digest that the trainer gave it and can be shared between
versions. It takes a few kilobytes per version.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from automl_tl_registry.errors import DamagedManifestError, InvalidBlobError
from automl_tl_registry.journal import canonical
from automl_tl_registry.tensors import encode_metadata, header_of
from automl_tl_registry.values import Manifest

__all__ = ["MAX_MANIFEST_BYTES", "decode", "encode", "is_manifest", "read_manifest"]

FORMAT: Final = "automl_tl.manifest/1"
MAX_MANIFEST_BYTES: Final = 16_000_000  # ImageNet's 1000 classes with a per-class table take 0.2 MB


def encode(manifest: Manifest) -> bytes:
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
    """Read a manifest blob.

    Raises:
        DamagedManifestError: the file is not a valid manifest.
    """
    with path.open("rb") as stream:
        return decode(stream.read(MAX_MANIFEST_BYTES + 1), path)


def decode(content: bytes, path: Path) -> Manifest:
    """Decode the bytes of a manifest blob.

    Args:
        content: the whole file.
        path: where it comes from, for error messages.

    Raises:
        DamagedManifestError: the content is not a valid manifest.
    """
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
