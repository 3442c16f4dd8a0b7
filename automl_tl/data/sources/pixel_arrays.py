"""Images stored as arrays of pixels: CIFAR's Python batches and MNIST's idx files.

CIFAR's batches are pickles, and unpickling can run code. ``_PixelUnpickler`` therefore resolves only the names that a
pickled array of bytes needs; every other name is refused before anything is imported.
"""

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from automl_tl.data.sources.source import Entry, Source
from automl_tl.errors import BrokenSourceError
from automl_tl.values import SplitName

CIFAR_FOLDERS: Final = ("", "cifar-10-batches-py", "cifar-100-python")
MNIST_SPLITS: Final[dict[str, SplitName]] = {"train": "train", "t10k": "test"}
MAX_FILE_BYTES: Final = 2**30  # CIFAR-100's training file has 155 MB
BATCH: Final = "a python batch of CIFAR"
EXPECTED: Final = f"a file of numbers, strings, lists and byte arrays, such as {BATCH}"
RECONSTRUCT: Final = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")


class _Batch(NamedTuple):
    """Images of one size, ``(N, C, H, W)`` uint8, and their labels."""

    pixels: NDArray[np.uint8]
    labels: tuple[str, ...]
    split: SplitName


@final
class PixelArraySource(Source):
    """Images of one size in a few arrays; an image is an entry called ``<batch>/<number>``."""

    def __init__(self, root: Path, kind: str, batches: Mapping[str, _Batch], class_names: Sequence[str]) -> None:
        self.root, self.kind = root, kind
        self._batches, self._class_names = dict(batches), tuple(sorted(class_names))

    def entries(self) -> Iterator[Entry]:
        """Every image."""
        for name, batch in self._batches.items():
            for number, label in enumerate(batch.labels):
                yield Entry(f"{name}/{number:05}", label, batch.split)

    def read(self, path: str) -> bytes:
        """The image as an uncompressed PPM (color) or PGM (gray) file."""
        name, number = path.rsplit("/", 1)
        pixels = self._batches[name].pixels[int(number)].transpose(1, 2, 0)
        height, width, channels = pixels.shape
        header = b"%s\n%d %d\n255\n" % (b"P6" if channels == 3 else b"P5", width, height)
        return header + bytes(pixels.tobytes())

    def class_names(self) -> tuple[str, ...]:
        """Names of all classes."""
        return self._class_names


def open_cifar(folder: Path) -> PixelArraySource | None:
    """CIFAR-10 or CIFAR-100 as torchvision stores it, in ``folder`` or one below; ``None`` if there is neither."""
    for place in (folder / name for name in CIFAR_FOLDERS):
        meta, label_key, names_key = place / "batches.meta", "labels", "label_names"
        train, test = sorted(place.glob("data_batch_?")), place / "test_batch"
        if not meta.is_file():
            meta, label_key, names_key = place / "meta", "fine_labels", "fine_label_names"
            train, test = [place / "train"], place / "test"
        files: dict[Path, SplitName] = {**dict.fromkeys(train, "train"), test: "test"}
        files = {file: split for file, split in files.items() if file.is_file()}
        if meta.is_file() and files:
            names = _read_class_names(meta, names_key)
            batches = {file.name: _read_batch(file, split, names, label_key) for file, split in files.items()}
            return PixelArraySource(place, "cifar", batches, names)
    return None


def _read_batch(file: Path, split: SplitName, names: Sequence[str], key: str) -> _Batch:
    batch = _read_pickle(file)
    pixels, labels = batch.get("data"), batch.get(key)
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list) or pixels.size != len(labels) * 3072:
        raise BrokenSourceError(file, "it holds no array of 32 x 32 pixels with labels", BATCH)
    if not all(isinstance(label, int) and 0 <= label < len(names) for label in labels):
        raise BrokenSourceError(file, "a label is not the number of a class", f"numbers from 0 to {len(names) - 1}")
    return _Batch(pixels.reshape(-1, 3, 32, 32), tuple(names[label] for label in labels), split)


def _read_class_names(file: Path, key: str) -> list[str]:
    names = _read_pickle(file).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise BrokenSourceError(file, f"it holds no list {key!r}", "the names of the classes of CIFAR")
    return [_to_text(name) for name in names]


class _PixelUnpickler(pickle.Unpickler):
    """Unpickles plain values and byte arrays; refuses every other name before it is imported.

    Arrays are the only objects that are built: numpy's reconstruction function is replaced by one that ignores its
    arguments, and ``ndarray`` by a plain string, so that no file can allocate an array of any other size or type.
    """

    def find_class(self, module: str, name: str) -> object:
        """The replacement for ``module.name``; an ``UnpicklingError`` if a byte array does not need it."""
        full_name = f"{module}.{name}"
        if full_name in RECONSTRUCT:
            return lambda *_: np.empty(0, dtype=np.uint8)
        if full_name == "numpy.dtype":
            return _byte_type
        if full_name == "numpy.ndarray":
            return full_name
        if full_name == "_codecs.encode":  # byte strings in a pickle that Python 3 wrote with protocol 2 or lower
            return lambda text, _encoding: text.encode("latin-1")
        raise pickle.UnpicklingError(f"it asks for {full_name!r}, which is not allowed")


def _byte_type(name: object, *_: object) -> np.dtype[Any]:
    if name not in ("u1", b"u1"):
        raise pickle.UnpicklingError(f"it holds an array of type {name!r}")
    return np.dtype(np.uint8)


def _read_pickle(file: Path) -> dict[str, Any]:
    """The dictionary in ``file``, keys as text."""
    if file.stat().st_size > MAX_FILE_BYTES:
        raise BrokenSourceError(file, f"it has more than {MAX_FILE_BYTES:,} bytes", EXPECTED)
    try:
        values = _PixelUnpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises anything
        raise BrokenSourceError(file, f"it is damaged ({error})", EXPECTED) from error
    if not isinstance(values, dict):
        raise BrokenSourceError(file, f"it holds a {type(values).__name__}", EXPECTED)
    return {_to_text(key): value for key, value in values.items()}


def _to_text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def open_mnist(folder: Path) -> PixelArraySource | None:
    """MNIST, or a data set in its format, in ``folder`` or its ``raw``; classes are the numbers in the files."""
    batches: dict[str, _Batch] = {}
    for place in (folder, folder / "raw"):
        for prefix, split in MNIST_SPLITS.items():
            images, labels = (_find_idx(place / f"{prefix}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
            if images and labels and split not in batches:
                batches[split] = _read_idx_pair(images, labels, split)
    names = {label for batch in batches.values() for label in batch.labels}
    return PixelArraySource(folder, "mnist", batches, list(names)) if batches else None


def _read_idx_pair(images: Path, labels: Path, split: SplitName) -> _Batch:
    data, numbers = _read_idx(images, dimensions=3), _read_idx(labels, dimensions=1)
    count, height, width = (int.from_bytes(data[4 * at : 4 * at + 4], "big") for at in (1, 2, 3))
    if len(data) != 16 + count * height * width or len(numbers) != 8 + count:
        raise BrokenSourceError(images, "images and labels are not as many as it says", "whole idx files")
    pixels = np.frombuffer(data, dtype=np.uint8, offset=16).reshape(count, 1, height, width)
    return _Batch(pixels, tuple(str(number) for number in numbers[8:]), split)


def _read_idx(file: Path, *, dimensions: int) -> bytes:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise BrokenSourceError(file, f"it can't be read ({error})", "a whole idx file") from error
    if data[:4] != bytes([0, 0, 8, dimensions]):
        raise BrokenSourceError(file, f"it begins with {data[:4].hex(' ')}", "an idx file of bytes")
    return data


def _find_idx(file: Path) -> Path | None:
    return next((path for path in (file, file.with_name(f"{file.name}.gz")) if path.is_file()), None)
