"""Reading and judging the header of a safetensors file without trusting it, and writing such files.

A file is eight bytes (length of the header, little endian), the header (JSON: name -> dtype, shape, data_offsets; and
``__metadata__``: strings), and the data. Nothing is allocated by a number in the file before it is compared with the file's
size. Stricter than the format asks for: tensors must cover the data without gaps or overlaps, so nothing can hide.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from automl_tl_registry.errors import InvalidBlobError, SourceNotFoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_HEADER_BYTES", "Header", "Tensor", "encoded_header", "header_in", "read_header", "read_tensor", "write_tensors"]

MAX_HEADER_BYTES: Final = 100_000_000  # the limit of the safetensors library itself
# Bits of an element; the list is that of safetensors 0.6 (docs.rs/safetensors, enum Dtype).
DTYPE_BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}  # fmt: skip
NUMPY_NAMES: Final = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "float16": "F16", "int32": "I32",
    "uint32": "U32", "float32": "F32", "float64": "F64", "int64": "I64", "uint64": "U64",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """Where a tensor is: ``begin`` and ``end`` are bytes from the start of the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself; ``data_at`` is the byte where the data starts."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    data_at: int


def read_header(path: Path, *, max_bytes: int = MAX_HEADER_BYTES) -> Header:
    """Header of the file, checked throughout.

    Raises:
        SourceNotFoundError: there is no such file.
        InvalidBlobError: the file isn't a well-formed safetensors file.
    """
    try:
        with path.open("rb") as stream:
            return header_in(stream, path, size=path.stat().st_size, max_bytes=max_bytes)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise SourceNotFoundError(path, what="safetensors file") from error


def header_in(stream: IO[bytes], path: Path, *, size: int, max_bytes: int = MAX_HEADER_BYTES) -> Header:
    """Header of a safetensors file of ``size`` bytes that ``stream`` is at the start of; ``path`` is for errors."""
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > min(size - 8, max_bytes):
        raise InvalidBlobError(path, f"its header should have {length} bytes, the file has {size}, the limit is {max_bytes}")
    return _judged(path, stream.read(length), data_bytes=size - 8 - length)


def _judged(path: Path, content: bytes, *, data_bytes: int) -> Header:
    try:
        fields = json.loads(content, object_pairs_hook=_distinct)
        metadata = fields.pop("__metadata__", {}) if isinstance(fields, dict) else None
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("the header isn't an object whose __metadata__ holds strings")
        tensors = {name: _tensor(name, field) for name, field in fields.items()}
        _check_cover(tensors, data_bytes)
    except (ValueError, RecursionError) as error:
        raise InvalidBlobError(path, str(error)[:300]) from error
    return Header(tensors, metadata, data_at=8 + len(content))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in the header")
    return found


def _tensor(name: str, field: object) -> Tensor:
    match field:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)], **rest} if not rest:
            sizes = [size for size in shape if type(size) is int and 0 <= size < 1 << 48]
            bits = DTYPE_BITS.get(dtype)
            if (
                bits is not None
                and len(sizes) == len(shape) <= 32
                and 0 <= begin <= end
                and prod(sizes) * bits == 8 * (end - begin)
            ):
                return Tensor(dtype, tuple(sizes), begin, end)
    raise ValueError(f"the entry of tensor {name[:80]!a} is malformed, or its shape disagrees with its bytes")


def _check_cover(tensors: Mapping[str, Tensor], data_bytes: int) -> None:
    reached = 0
    for tensor in sorted(tensors.values(), key=lambda each: (each.begin, each.end)):
        if tensor.begin != reached:
            raise ValueError(f"tensors overlap or leave a gap at byte {tensor.begin} of the data")
        reached = tensor.end
    if reached != data_bytes:
        raise ValueError(f"the tensors take {reached} bytes, the file holds {data_bytes} bytes of data")


def encoded_header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Length and header, padded with blanks to a multiple of eight, as the format wants it; the same input, the same bytes."""
    fields: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    fields |= {
        name: {"dtype": each.dtype, "shape": list(each.shape), "data_offsets": [each.begin, each.end]}
        for name, each in tensors.items()
    }
    content = json.dumps(fields, separators=(",", ":")).encode("ascii")
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content


def read_tensor(path: Path, header: Header, name: str) -> NDArray[Any]:
    """The tensor ``name`` as a read-only numpy array, copied into memory."""
    import numpy as np

    tensor = header.tensors[name]
    dtype = next((numpy for numpy, ours in NUMPY_NAMES.items() if ours == tensor.dtype), None)
    if dtype is None:
        raise InvalidBlobError(path, f"numpy has no {tensor.dtype}, the type of tensor {name!a}")
    with path.open("rb") as stream:
        stream.seek(header.data_at + tensor.begin)
        data = stream.read(tensor.end - tensor.begin)
    return np.frombuffer(data, dtype=np.dtype(dtype).newbyteorder("<")).reshape(tensor.shape)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> Path:
    """Write ``tensors`` as a safetensors file and give back ``path``; the same input gives the same bytes.

    Arrays that share memory are written separately. The file appears under its name when it is whole: an existing one is
    replaced, never overwritten, so that whoever has mapped it keeps the old bytes.
    """
    draft = path.with_name(f".{path.name}.partial")
    with draft.open("wb") as stream:
        for chunk in _encoded(tensors, metadata or {}):
            stream.write(chunk)
    draft.replace(path)
    return path


def _encoded(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Iterator[bytes]:
    import numpy as np

    # Widest elements first, then by name: then each tensor is aligned, as in the safetensors library.
    ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))
    entries, reached = {}, 0
    for name, array in ordered.items():
        entries[name] = Tensor(NUMPY_NAMES[array.dtype.name], array.shape, reached, reached + array.nbytes)
        reached += array.nbytes
    yield encoded_header(entries, metadata)
    for array in ordered.values():
        yield np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
