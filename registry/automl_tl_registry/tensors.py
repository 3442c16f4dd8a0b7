"""Read, check and write safetensors files.

The safetensors library checks lengths, offsets, shapes and full coverage of the data. Two checks are added, because published
files may come from anyone: a header must not repeat a key, and a tensor entry must hold nothing but its three fields.
numpy is imported only to read or write arrays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from safetensors import SafetensorError, deserialize, safe_open

from automl_tl_registry.errors import InvalidBlobError, SourceNotFoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_DIMENSIONS", "Header", "encode_metadata", "header_of", "read_header", "read_tensors", "write_tensors"]

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
        raise SourceNotFoundError(path, what="safetensors file") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise InvalidBlobError(path, str(error)[:300]) from error


def header_of(content: bytes, path: Path) -> Header:
    """Check the bytes of a safetensors file and return its header."""
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
    """Read tensors that share their first dimension.

    Args:
        path: a safetensors file.
        rows: dtype and shape of one row by tensor name; every tensor has the shape ``(N, *row)``.

    Returns:
        The arrays, in the order of ``rows``.

    Raises:
        SourceNotFoundError: the file does not exist or is unreadable.
        InvalidBlobError: a tensor is missing, or its dtype or shape differs.
    """
    found = read_header(path).tensors
    num_rows = next((found[name][1][:1] for name, (_, row) in rows.items() if not row and name in found), (0,))
    for name, (dtype, row) in rows.items():
        if found.get(name) != (dtype, (*num_rows, *row)):
            shape = list((*num_rows, *row))
            raise InvalidBlobError(path, f"expected tensor {name} as {dtype} {shape}, found {found.get(name, 'none')}")
    with safe_open(path, NUMPY_FRAMEWORK) as file:
        return tuple(file.get_tensor(name) for name in rows)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> Path:
    """Write a safetensors file; the same tensors give the same bytes.

    The file appears under its name when it is complete. An existing file is replaced, never overwritten, so a process that
    has mapped it keeps the old bytes.

    Args:
        path: the file to write.
        tensors: arrays by name; arrays that share memory are written separately.

    Returns:
        ``path``.
    """
    import numpy as np
    from safetensors.numpy import save_file

    draft = path.with_name(f".{path.name}.partial")
    # The library writes the memory of a strided or transposed array as it is, in the wrong order: copy those first.
    save_file({name: np.asarray(array, order="C") for name, array in tensors.items()}, draft)
    draft.replace(path)
    return path
