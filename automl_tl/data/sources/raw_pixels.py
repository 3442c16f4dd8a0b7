"""Data sets as torchvision keeps them: CIFAR's python batches and MNIST's idx files, pixels without any encoding.

CIFAR's batches are pickles, and unpickling runs whatever a pickle says. Nothing is unpickled here: ``pickle_reading`` walks
through the few kinds of plain values that such a file holds, and where the pixels lie in it.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np

from automl_tl.data.sources.pickle_reading import Span, read_plain
from automl_tl.data.sources.source import Entry, Source
from automl_tl.data.sources.spool import Spool
from automl_tl.errors import BrokenSourceError
from automl_tl.values import Part

__all__ = ["RawPixelSource", "cifar_batches", "mnist_pairs", "open_cifar", "open_mnist"]

MNIST: Final = {"train": "train", "t10k": "test"}
MAX_IDX_BYTES: Final = 2**30


@dataclass(frozen=True, slots=True)
class _Batch:
    """Pixels of many images in one file: ``shape`` is that of one, planes first, from ``offset`` on."""

    name: str
    file: Path
    offset: int
    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    part: Part


@final
class RawPixelSource(Source):
    """Images of one size, one after the other in a few files; ``read`` gives them as PPM or PGM."""

    def __init__(
        self, root: Path, kind: str, batches: Sequence[_Batch], class_names: Sequence[str], spool: Spool | None
    ) -> None:
        self.root, self.kind = root, kind
        self._batches = {batch.name: batch for batch in batches}
        self._class_names = tuple(sorted(class_names))
        self._spool = spool  # kept alive, for the batches' files may be its

    def entries(self) -> Iterator[Entry]:
        """Every image, called ``<batch>/<number>``."""
        for batch in self._batches.values():
            for number, label in enumerate(batch.labels):
                yield Entry(f"{batch.name}/{number:05}", label=label, part=batch.part)

    def read(self, path: str) -> bytes:
        """The image as an uncompressed PPM (color) or PGM (gray) file."""
        name, number = path.rsplit("/", 1)
        batch = self._batches[name]
        planes, height, width = batch.shape
        size = planes * height * width
        with batch.file.open("rb") as file:
            file.seek(batch.offset + int(number) * size)
            data = file.read(size)
        if len(data) < size:
            raise OSError("the file ends before this image")
        pixels = np.frombuffer(data, dtype=np.uint8).reshape(batch.shape).transpose(1, 2, 0)
        return b"%s\n%d %d\n255\n" % (b"P6" if planes == 3 else b"P5", width, height) + pixels.tobytes()

    def class_names(self) -> tuple[str, ...]:
        """Names of all classes."""
        return self._class_names


def cifar_batches(folder: Path) -> list[tuple[Path, Part]]:
    """Files of CIFAR-10 or CIFAR-100 in ``folder`` and their parts; none if it is neither."""
    files: list[tuple[Path, Part]] = []
    if (folder / "batches.meta").is_file():
        files = [*((file, "train") for file in sorted(folder.glob("data_batch_?"))), (folder / "test_batch", "test")]
    elif (folder / "meta").is_file():
        files = [(folder / "train", "train"), (folder / "test", "test")]
    return [(file, part) for file, part in files if file.is_file()]


def open_cifar(folder: Path) -> RawPixelSource:
    """CIFAR-10 or CIFAR-100 as torchvision keeps it.

    Raises:
        BrokenSourceError: a file is damaged, or holds anything but plain values.
    """
    hundred = (folder / "meta").is_file()
    names_file = folder / ("meta" if hundred else "batches.meta")
    names = _texts(read_plain(names_file), "fine_label_names" if hundred else "label_names", names_file)
    batches = [_cifar_batch(file, part, names, "fine_labels" if hundred else "labels") for file, part in cifar_batches(folder)]
    return RawPixelSource(folder, "cifar", batches, names, None)


def _cifar_batch(file: Path, part: Part, names: Sequence[str], key: str) -> _Batch:
    found = read_plain(file)
    pixels, labels = found.get("data"), found.get(key)
    if not isinstance(pixels, Span) or not isinstance(labels, list) or pixels.size != len(labels) * 3072:
        raise BrokenSourceError(file, "it holds no 32 x 32 pixels with labels", "a python batch of CIFAR")
    if not all(isinstance(label, int) and 0 <= label < len(names) for label in labels):
        raise BrokenSourceError(file, "a label is no number of a class", f"numbers from 0 to {len(names) - 1}")
    return _Batch(file.name, file, pixels.offset, (3, 32, 32), tuple(names[label] for label in labels), part)


def _texts(found: dict[str, object], key: str, file: Path) -> list[str]:
    names = found.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BrokenSourceError(file, f"it holds no list {key!r}", "the names of the classes of CIFAR")
    return [str(name) for name in names]


def mnist_pairs(folder: Path) -> list[tuple[Path, Path, Part]]:
    """Files of images and of labels of an MNIST-like set in ``folder`` (or its ``raw``), and their parts."""
    found: list[tuple[Path, Path, Part]] = []
    for place in (folder, folder / "raw"):
        for prefix, part in MNIST.items():
            pair = [_either(place / f"{prefix}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
            if pair[0] and pair[1] and not any(part == known for _, _, known in found):
                found.append((pair[0], pair[1], "train" if part == "train" else "test"))
    return found


def open_mnist(folder: Path) -> RawPixelSource:
    """MNIST, or a set in its format, as torchvision keeps it; classes are the numbers in the files.

    Raises:
        BrokenSourceError: a file is damaged.
    """
    spool = Spool()
    batches = [_mnist_batch(images, labels, part, spool) for images, labels, part in mnist_pairs(folder)]
    names = {label for batch in batches for label in batch.labels}
    return RawPixelSource(folder, "mnist", batches, sorted(names), spool)


def _mnist_batch(images: Path, labels: Path, part: Part, spool: Spool) -> _Batch:
    pixels, numbers = _idx(images, dimensions=3), _idx(labels, dimensions=1)
    count, height, width = (int.from_bytes(pixels[4 * at : 4 * at + 4], "big") for at in (1, 2, 3))
    if len(pixels) != 16 + count * height * width or len(numbers) != 8 + count:
        raise BrokenSourceError(images, "images and labels are not as many as it says", "whole idx files")
    offset = spool.put(part, pixels) + 16
    return _Batch(part, spool.file, offset, (1, height, width), tuple(str(number) for number in numbers[8:]), part)


def _idx(file: Path, *, dimensions: int) -> bytes:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            data = opened.read(MAX_IDX_BYTES)
    except (OSError, EOFError) as error:
        raise BrokenSourceError(file, f"it can't be read ({error})", "a whole idx file") from error
    if data[:4] != bytes([0, 0, 8, dimensions]):
        raise BrokenSourceError(file, f"it begins with {data[:4].hex(' ')}", "an idx file of bytes")
    return data


def _either(file: Path) -> Path | None:
    return next((found for found in (file, file.with_name(f"{file.name}.gz")) if found.is_file()), None)
