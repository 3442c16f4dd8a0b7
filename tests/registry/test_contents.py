from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from automl_tl_registry import Registry, write_tensors
from automl_tl_registry.contents import decode_manifest, encode_metadata, read_header, read_tensors
from automl_tl_registry.errors import DamagedManifestError, InvalidBlobError, RegistryError
from tests.registry.registry_fakes import facts, predictions, weights


def file_of(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(content) if length is None else length).to_bytes(8, "little") + content + data)
    return path


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4), **more: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        (b"", b"", None),
        (b"{}", b"", 2**64 - 1),
        (b"{}", b"", 2**40),
        (b"{}", b"", 3),
        (b"[1]", b"", None),
        (b"null", b"", None),
        (b"{" * 50_000, b"", None),
        (b'{"a": ' + b"9" * 5000 + b"}", b"", None),
        ({}, b"hidden", None),
        ({"a": entry()}, b"", None),
        ({"a": entry()}, b"12345", None),
        ({"a": entry(), "b": entry()}, b"1234", None),
        ({"a": entry(), "b": entry(offsets=(8, 12))}, b"123456789012", None),
        ({"a": entry(shape=(2**40, 2**40), offsets=(0, 4))}, b"1234", None),
        ({"a": entry(shape=(-1,))}, b"1234", None),
        ({"a": entry(shape=(True,))}, b"1234", None),
        ({"a": entry(shape=[1] * 33)}, b"1234", None),
        ({"a": entry(dtype="PICKLE")}, b"1234", None),
        ({"a": entry(dtype=["F32"])}, b"1234", None),
        ({"a": entry(offsets=(0, "4"))}, b"1234", None),
        ({"a": entry(offsets=(-4, 0))}, b"1234", None),
        ({"a": entry(code="import os")}, b"1234", None),
        ({"__metadata__": {"a": 1}}, b"", None),
        ({"__metadata__": "a"}, b"", None),
        ({"__metadata__": None}, b"", None),
        (b'{"__metadata__": {"k": "a", "k": "b"}}', b"", None),
        ({"a": entry(shape=(0, 2**60), offsets=(0, 0))}, b"", None),
        (b'{"a": 1, "a": 2}', b"", None),
    ],
)
def test_publish_rejects_a_malformed_header(
    registry: Registry, work: Path, header: object, data: bytes, length: int | None
) -> None:
    path = file_of(work / "bad.safetensors", header, data, length)

    with pytest.raises(InvalidBlobError, match=r"bad\.safetensors"):
        registry.publish("insects", {"head": path}, facts())

    assert not registry.root.exists()


def test_header_rejects_repeated_tensors(work: Path) -> None:
    repeated = json.dumps({"a": entry(), "b": entry()}).replace('"b"', '"a"').encode()

    with pytest.raises(InvalidBlobError, match="repeats a key"):
        read_header(file_of(work / "bad", repeated, b"1234"))


@pytest.mark.parametrize("content", [b"", b"1234567", b"\x80\x04\x95pickle"])
def test_header_rejects_short_files_and_pickles(work: Path, content: bytes) -> None:
    (work / "bad").write_bytes(content)

    with pytest.raises(InvalidBlobError):
        read_header(work / "bad")


@settings(deadline=None)  # it opens files; only the kind of error matters
@given(content=st.binary(max_size=60), length=st.integers(0, 70))
def test_header_of_arbitrary_bytes_raises_registry_errors_only(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary"
    path.write_bytes(length.to_bytes(8, "little") + content)

    try:
        read_header(path)
    except RegistryError:
        return
    load_file(path)


def test_header_lists_tensors_and_metadata(work: Path) -> None:
    tensors = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.array(3.5), "c": np.zeros((0, 4), np.int64)}
    save_file(tensors, work / "file", {"k": "v"})

    header = read_header(work / "file")

    assert header.metadata == {"k": "v"}
    assert header.tensors == {"a": ("F16", (2, 3)), "b": ("F64", ()), "c": ("I64", (0, 4))}


def test_read_tensors_returns_what_was_written(work: Path) -> None:
    tensors: dict[str, NDArray[Any]] = {
        "label": np.arange(3),
        "row": np.eye(3, 2, dtype=np.float32),
        "mask": np.ones(3, np.uint8),
    }
    path = write_tensors(work / "file", tensors)

    read = read_tensors(path, {"label": ("I64", ()), "row": ("F32", (2,)), "mask": ("U8", ())})

    assert all(np.array_equal(array, tensors[name]) for name, array in zip(("label", "row", "mask"), read, strict=True))


@pytest.mark.parametrize("rows", [{"other": ("I64", ())}, {"label": ("I32", ())}, {"label": ("I64", ()), "row": ("F32", (3,))}])
def test_read_tensors_rejects_missing_and_misshapen_tensors(work: Path, rows: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    path = write_tensors(work / "file", {"label": np.arange(3), "row": np.eye(3, 2, dtype=np.float32)})

    with pytest.raises(InvalidBlobError, match="expected tensor"):
        read_tensors(path, rows)


def test_write_tensors_separates_arrays_that_share_memory(work: Path) -> None:
    whole = np.arange(8, dtype=np.float32)

    path = write_tensors(work / "shared", {"whole": whole, "half": whole[::2], "turned": whole.reshape(2, 4).T})

    assert [load_file(path)[name].tolist() for name in ("half", "turned")] == [
        whole[::2].tolist(),
        whole.reshape(2, 4).T.tolist(),
    ]


def test_write_tensors_replaces_a_file_and_keeps_the_mapped_one(work: Path) -> None:
    path = write_tensors(work / "file", {"a": np.zeros(4)})
    with path.open("rb") as mapped:
        before = path.read_bytes()

        write_tensors(path, {"a": np.ones(4)})

        assert mapped.read() == before
        assert path.read_bytes() != before


def test_write_tensors_is_deterministic(work: Path) -> None:
    one = write_tensors(work / "one", {"a": np.zeros(4), "b": np.ones(3, np.int8)})
    two = write_tensors(work / "two", {"b": np.ones(3, np.int8), "a": np.zeros(4)})

    assert one.read_bytes() == two.read_bytes()


def test_write_tensors_keeps_the_bytes_of_published_predictions(work: Path) -> None:
    path = predictions(work / "predictions", [0, 1, 2], [0, 1, 1])

    assert hashlib.sha256(path.read_bytes()).hexdigest() == "51eb7a09c1e8838f4a2275dd51038c1166a739db9af1c5500d8b22fd52280feb"


def test_encode_metadata_keeps_the_bytes_of_published_manifests() -> None:
    content = encode_metadata({"manifest": "{}", "format": "é"})

    assert content == b'8\0\0\0\0\0\0\0{"__metadata__":{"format":"\\u00e9","manifest":"{}"}}    '


def test_decode_rejects_an_oversized_manifest(monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    monkeypatch.setattr("automl_tl_registry.contents.MAX_MANIFEST_BYTES", 64)

    with pytest.raises(DamagedManifestError, match="more than 64 bytes"):
        decode_manifest(encode_metadata({"manifest": "x" * 100}), work / "manifest")


def test_fake_weights_are_valid_safetensors(work: Path) -> None:
    assert load_file(weights(work / "weights"))["bias"].tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(SafetensorError):
        load_file(file_of(work / "bad", {"a": entry()}, b""))
