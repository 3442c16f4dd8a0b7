"""CIFAR and MNIST as torchvision stores them; no pickle runs code."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automl_tl.data import open_source, scan
from automl_tl.errors import BrokenSourceError
from tests.data.source_makers import put


def python2_pickle(pixels: bytes, labels: list[int], key: bytes) -> bytes:
    """A batch as cPickle of Python 2 wrote CIFAR's: protocol 2, byte strings, an array by ``_reconstruct``."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"K" + bytes([len(labels)]) + b"M\x00\x0c\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R(K\x01" + shape
    array += dtype + b"\x89T" + struct.pack("<i", len(pixels)) + pixels + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}q\x01(" + text(b"data") + array + text(key) + numbers + b"u."


def cifar(folder: Path, label_key: bytes = b"labels") -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    meta = b"\x80\x02}(U\x0blabel_names](U\x04antsU\x04beeseu."
    put(folder, {"batches.meta": meta, "data_batch_1": python2_pickle(pixels.tobytes(), [0, 1, 0, 1], label_key)})
    put(folder, {"test_batch": pickle.dumps({"data": pixels.reshape(4, -1)[:2], "labels": [1, 0]}, protocol=4)})
    return pixels


def test_cifar_reads_pickled_batches(tmp_path: Path) -> None:
    pixels = cifar(tmp_path / "cifar-10-batches-py")

    source = open_source(tmp_path)
    index = scan(source, workers=1)

    assert [(image.split, image.label) for image in index.images] == [
        *(("train", label) for label in ("ants", "bees", "ants", "bees")),
        *(("test", label) for label in ("bees", "ants")),
    ]
    read = np.asarray(Image.open(io.BytesIO(source.read(index.images[2].path))))
    assert (read == pixels[2].transpose(1, 2, 0)).all()


def test_cifar_reads_downloaded_archive(tmp_path: Path) -> None:
    cifar(tmp_path / "in" / "cifar-10-batches-py")
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in" / "cifar-10-batches-py", arcname="cifar-10-batches-py")

    source = open_source(tmp_path / "cifar-10-python.tar.gz")
    index = scan(source)

    plain = open_source(tmp_path / "in")
    assert index.source == "archive_of_cifar"
    assert [source.read(image.path) for image in index.images] == [plain.read(image.path) for image in index.images]


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (Path("hacked"),)  # type: ignore[return-value]


@pytest.mark.parametrize("protocol", range(6))
def test_cifar_rejects_pickle_that_runs_code(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cifar(tmp_path / "c")
    (tmp_path / "c" / "data_batch_1").write_bytes(pickle.dumps({"data": Hostile(), "labels": [1]}, protocol=protocol))

    with pytest.raises(BrokenSourceError, match="not allowed"):
        open_source(tmp_path / "c")

    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("protocol", range(5))
def test_cifar_reads_batches_of_every_pickle_protocol(protocol: int, tmp_path: Path) -> None:
    pixels = cifar(tmp_path / "c")
    batch = {"data": pixels.reshape(4, -1), "labels": [0, 1, 0, 1]}
    (tmp_path / "c" / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=protocol))

    source = open_source(tmp_path / "c")

    assert source.read("data_batch_1/00003").endswith(pixels[3].transpose(1, 2, 0).tobytes())


@pytest.mark.parametrize("data", [np.zeros(2, dtype=object), np.zeros(3072, dtype=np.float32), Path("x"), np.dtype("O")])
def test_cifar_rejects_pickle_of_other_objects(data: object, tmp_path: Path) -> None:
    cifar(tmp_path / "c")
    (tmp_path / "c" / "data_batch_1").write_bytes(pickle.dumps({"data": data, "labels": [1]}))

    with pytest.raises(BrokenSourceError):
        open_source(tmp_path / "c")


@pytest.mark.parametrize("cut", [0, 10, 100, 1000, 12_000])
def test_cifar_rejects_damaged_pickle(cut: int, tmp_path: Path) -> None:
    cifar(tmp_path / "c")
    batch = tmp_path / "c" / "data_batch_1"
    batch.write_bytes(batch.read_bytes()[:cut])

    with pytest.raises(BrokenSourceError):
        open_source(tmp_path / "c")


def test_mnist_reads_idx_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    images = struct.pack(">IIII", 0x803, 3, 28, 28) + pixels.tobytes()
    labels = struct.pack(">II", 0x801, 3) + bytes([7, 1, 7])
    put(
        tmp_path / "raw",
        {
            f"{name}-{kind}-ubyte": data
            for name in ("train", "t10k")
            for kind, data in (("images-idx3", images), ("labels-idx1", labels))
        },
    )

    source = open_source(tmp_path)
    index = scan(source)

    assert [(image.split, image.label) for image in index.images] == [
        (split, label) for split in ("test", "train") for label in "717"
    ]
    assert (np.asarray(Image.open(io.BytesIO(source.read("train/00001")))) == pixels[1]).all()
