from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from automl_tl_registry import Registry, write_tensors
from automl_tl_registry.errors import InvalidBlobError, RegistryError
from automl_tl_registry.header import read_header, read_tensor
from tests.registry.registry_fakes import facts, weights


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
        (b'{"a": 1, "a": 2}', b"", None),
    ],
)
def test_a_malformed_header_is_refused_and_never_published(
    registry: Registry, work: Path, header: object, data: bytes, length: int | None
) -> None:
    path = file_of(work / "bad.safetensors", header, data, length)

    with pytest.raises(InvalidBlobError, match=r"bad\.safetensors"):
        registry.publish("insects", {"head": path}, facts())

    assert not registry.root.exists()


@pytest.mark.parametrize("content", [b"", b"1234567", b"\x80\x04\x95pickle"])
def test_what_is_too_short_or_a_pickle_is_refused(work: Path, content: bytes) -> None:
    (work / "bad").write_bytes(content)

    with pytest.raises(InvalidBlobError):
        read_header(work / "bad")


@given(content=st.binary(max_size=60), length=st.integers(0, 70))
def test_arbitrary_bytes_never_do_worse_than_a_registry_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary"
    path.write_bytes(length.to_bytes(8, "little") + content)

    try:
        read_header(path)
    except RegistryError:
        return
    load_file(path)  # what we accept, the library accepts


def test_what_the_library_writes_is_read_and_the_other_way_round(work: Path) -> None:
    tensors = {
        "a": np.arange(6, dtype=np.float16).reshape(2, 3),
        "b": np.array(3.5),
        "c": np.zeros((0, 4), np.int64),
        "d": np.eye(2) > 0,
    }

    save_file(tensors, work / "theirs", {"k": "v"})
    write_tensors(work / "ours", tensors, {"k": "v"})

    theirs, ours = read_header(work / "theirs"), load_file(work / "ours")
    assert theirs.metadata == {"k": "v"}
    assert all(np.array_equal(read_tensor(work / "theirs", theirs, name), tensors[name]) for name in tensors)
    assert all(np.array_equal(ours[name], tensors[name]) and ours[name].dtype == tensors[name].dtype for name in tensors)


def test_arrays_that_share_memory_are_written_apart(work: Path) -> None:
    whole = np.arange(8, dtype=np.float32)

    path = write_tensors(work / "shared", {"whole": whole, "half": whole[::2], "turned": whole.reshape(2, 4).T})

    assert [load_file(path)[name].tolist() for name in ("half", "turned")] == [
        whole[::2].tolist(),
        whole.reshape(2, 4).T.tolist(),
    ]


def test_writing_replaces_a_file_and_leaves_the_mapped_one_alone(work: Path) -> None:
    path = write_tensors(work / "file", {"a": np.zeros(4)})
    with path.open("rb") as mapped:
        before = path.read_bytes()

        write_tensors(path, {"a": np.ones(4)})

        assert mapped.read() == before
        assert path.read_bytes() != before


def test_the_same_tensors_give_the_same_bytes(work: Path) -> None:
    one = write_tensors(work / "one", {"a": np.zeros(4), "b": np.ones(3, np.int8)}, {"x": "1", "y": "2"})
    two = write_tensors(work / "two", {"b": np.ones(3, np.int8), "a": np.zeros(4)}, {"y": "2", "x": "1"})

    assert one.read_bytes() == two.read_bytes()


def test_the_fake_weights_are_real_safetensors(work: Path) -> None:
    assert load_file(weights(work / "weights"))["bias"].tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(SafetensorError):
        load_file(file_of(work / "bad", {"a": entry()}, b""))
