"""Images stored as arrays of pixels: CIFAR's Python batches and MNIST's IDX files, in a folder or packed in an archive.

CIFAR's batches are pickles, and unpickling runs whatever a pickle asks for. ``_PixelUnpickler`` therefore resolves only the
names that a pickled array of bytes needs; every other name is refused before anything is imported.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import Any, Final, final
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from automl_tl.data.sniffing import IMAGE_SUFFIXES
from automl_tl.data.sources.archives import TABLE_SUFFIXES, ArchiveFiles
from automl_tl.data.sources.layout import MAX_WRAPPERS, aside
from automl_tl.data.sources.source import Entry, Source
from automl_tl.errors import BrokenSourceError
from automl_tl.values import SplitName

__all__ = ["PackedSource", "PixelArraySource", "cifar_batches", "mnist_pairs", "open_cifar", "open_mnist", "open_packed"]

MNIST: Final = {"train": "train", "t10k": "test"}
MAX_FILE_BYTES: Final = 2**30  # CIFAR-100's training file has 155 MB
EXPECTED: Final = "a file of numbers, strings, lists and byte arrays, such as CIFAR's python batches"
RECONSTRUCT: Final = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
TABLES: Final = re.compile(
    r"batches\.meta|meta|(train|t10k)-(images-idx3|labels-idx1)-ubyte(\.gz)?|.*("
    + "|".join(map(re.escape, TABLE_SUFFIXES))
    + ")"
)
OpenFolder = Callable[[Path], Source | None]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Images of one size and their labels: ``pixels`` is ``(N, C, H, W)``, uint8."""

    name: str
    pixels: NDArray[np.uint8]
    labels: tuple[str, ...]
    split: SplitName


@final
class PixelArraySource(Source):
    """Images of one size in a few arrays; ``read`` encodes them as PPM (color) or PGM (gray)."""

    def __init__(self, root: Path, kind: str, batches: Sequence[_Batch], class_names: Sequence[str]) -> None:
        self.root, self.kind = root, kind
        self._batches = {batch.name: batch for batch in batches}
        self._class_names = tuple(sorted(class_names))

    def entries(self) -> Iterator[Entry]:
        """Every image, called ``<batch>/<number>``."""
        for batch in self._batches.values():
            for number, label in enumerate(batch.labels):
                yield Entry(f"{batch.name}/{number:05}", label=label, split=batch.split)

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


def cifar_batches(folder: Path) -> list[tuple[Path, SplitName]]:
    """Files of CIFAR-10 or CIFAR-100 in ``folder`` and their parts; none if it is neither."""
    files: list[tuple[Path, SplitName]] = []
    if (folder / "batches.meta").is_file():
        files = [*((file, "train") for file in sorted(folder.glob("data_batch_?"))), (folder / "test_batch", "test")]
    elif (folder / "meta").is_file():
        files = [(folder / "train", "train"), (folder / "test", "test")]
    return [(file, part) for file, part in files if file.is_file()]


def open_cifar(folder: Path) -> PixelArraySource:
    """CIFAR-10 or CIFAR-100 as torchvision keeps it.

    Raises:
        BrokenSourceError: a file is damaged, or holds anything but plain values.
    """
    hundred = (folder / "meta").is_file()
    names_file = folder / ("meta" if hundred else "batches.meta")
    names = _class_names(_read_pickle(names_file), "fine_label_names" if hundred else "label_names", names_file)
    label_key = "fine_labels" if hundred else "labels"
    batches = [_cifar_batch(file, part, names, label_key) for file, part in cifar_batches(folder)]
    return PixelArraySource(folder, "cifar", batches, names)


def _cifar_batch(file: Path, part: SplitName, names: Sequence[str], key: str) -> _Batch:
    batch = _read_pickle(file)
    pixels, labels = batch.get("data"), batch.get(key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or not isinstance(labels, list):
        raise BrokenSourceError(file, "it holds no array of bytes with labels", "a python batch of CIFAR")
    if pixels.size != len(labels) * 3072:
        raise BrokenSourceError(file, "it holds no 32 x 32 pixels with labels", "a python batch of CIFAR")
    if not all(isinstance(label, int) and 0 <= label < len(names) for label in labels):
        raise BrokenSourceError(file, "a label is no number of a class", f"numbers from 0 to {len(names) - 1}")
    return _Batch(file.name, pixels.reshape(-1, 3, 32, 32), tuple(names[label] for label in labels), part)


def _class_names(values: dict[str, Any], key: str, file: Path) -> list[str]:
    names = values.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise BrokenSourceError(file, f"it holds no list {key!r}", "the names of the classes of CIFAR")
    return [_text(name) for name in names]


class _PixelUnpickler(pickle.Unpickler):
    """Unpickles plain values and byte arrays; refuses every other name before it is imported.

    Arrays are the only objects that are built: numpy's reconstruction function is replaced by one that ignores its
    arguments, and ``ndarray`` by a plain string, so that no file can allocate an array of any other size or type.
    """

    def find_class(self, module: str, name: str) -> object:
        """The replacement for ``module.name``.

        Raises:
            UnpicklingError: the name is not one that a byte array needs.
        """
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
    """The dictionary in ``file``, keys as text.

    Raises:
        BrokenSourceError: the file is damaged, too large, or asks for anything but plain values.
    """
    if file.stat().st_size > MAX_FILE_BYTES:
        raise BrokenSourceError(file, f"it has more than {MAX_FILE_BYTES:,} bytes", EXPECTED)
    try:
        values = _PixelUnpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises anything
        raise BrokenSourceError(file, f"it is damaged ({error})", EXPECTED) from error
    if not isinstance(values, dict):
        raise BrokenSourceError(file, f"it holds a {type(values).__name__}", EXPECTED)
    return {_text(key): value for key, value in values.items()}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def mnist_pairs(folder: Path) -> list[tuple[Path, Path, SplitName]]:
    """Files of images and of labels of an MNIST-like set in ``folder`` (or its ``raw``), and their parts."""
    found: list[tuple[Path, Path, SplitName]] = []
    for place in (folder, folder / "raw"):
        for prefix, part in MNIST.items():
            pair = [_either(place / f"{prefix}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
            if pair[0] and pair[1] and not any(part == known for _, _, known in found):
                found.append((pair[0], pair[1], "train" if part == "train" else "test"))
    return found


def open_mnist(folder: Path) -> PixelArraySource:
    """MNIST, or a dataset in its format, as torchvision keeps it; classes are the numbers in the files.

    Raises:
        BrokenSourceError: a file is damaged.
    """
    batches = [_mnist_batch(images, labels, part) for images, labels, part in mnist_pairs(folder)]
    return PixelArraySource(folder, "mnist", batches, sorted({label for batch in batches for label in batch.labels}))


def _mnist_batch(images: Path, labels: Path, part: SplitName) -> _Batch:
    data, numbers = _idx(images, dimensions=3), _idx(labels, dimensions=1)
    count, height, width = (int.from_bytes(data[4 * at : 4 * at + 4], "big") for at in (1, 2, 3))
    if len(data) != 16 + count * height * width or len(numbers) != 8 + count:
        raise BrokenSourceError(images, "images and labels are not as many as it says", "whole idx files")
    pixels = np.frombuffer(data, dtype=np.uint8, offset=16).reshape(count, 1, height, width)
    return _Batch(part, pixels, tuple(str(number) for number in numbers[8:]), part)


def _idx(file: Path, *, dimensions: int) -> bytes:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES)
    except (OSError, EOFError) as error:
        raise BrokenSourceError(file, f"it can't be read ({error})", "a whole idx file") from error
    if data[:4] != bytes([0, 0, 8, dimensions]):
        raise BrokenSourceError(file, f"it begins with {data[:4].hex(' ')}", "an idx file of bytes")
    return data


def _either(file: Path) -> Path | None:
    return next((found for found in (file, file.with_name(f"{file.name}.gz")) if found.is_file()), None)


def open_packed(file: Path, files: ArchiveFiles, open_folder: OpenFolder) -> Source | None:
    """The source inside the archive at ``file`` if it holds tables and no single images, else ``None``.

    Args:
        file: where the archive is.
        files: what it holds.
        open_folder: recognizes a folder of tables.
    """

    def names() -> Iterator[PurePosixPath]:
        return (PurePosixPath(member.path) for member in files.members() if not _left_aside(member.path))

    if any(name.suffix.lower() in IMAGE_SUFFIXES for name in names()) or not any(
        TABLES.fullmatch(name.name) for name in names()
    ):
        return None
    source = PackedSource(file, files, open_folder)
    return source if source.is_known else None


@final
class PackedSource(Source):
    """A source of tables in an archive, unpacked."""

    def __init__(self, root: Path, files: ArchiveFiles, open_folder: OpenFolder) -> None:
        self.root = root
        folder = Path(mkdtemp(prefix="automl_tl_unpacked_"))
        finalize(self, _remove, folder, os.getpid())
        self._outside = tuple(_unpacked(folder, files))
        self._inside = _opened(folder, open_folder, MAX_WRAPPERS)
        self.kind = f"archive_of_{self._inside.kind}" if self._inside else "archive"

    @property
    def is_known(self) -> bool:
        """Whether the unpacked files are a source."""
        return self._inside is not None

    def entries(self) -> Iterator[Entry]:
        """Every image of the tables, and every member that was not unpacked."""
        yield from self._outside
        if self._inside:
            yield from self._inside.entries()

    def read(self, path: str) -> bytes:
        """The bytes of the image."""
        if self._inside is None:
            raise OSError("the archive holds no images")
        return self._inside.read(path)

    def class_names(self) -> tuple[str, ...]:
        """Names of all classes, if the tables tell them."""
        return self._inside.class_names() if self._inside else ()


def _unpacked(folder: Path, files: ArchiveFiles) -> Iterator[Entry]:
    """Writes sound members to ``folder``; gives an entry for each of the others."""
    for number, member in enumerate(files.members()):
        ignored = _left_aside(member.path)
        if member.problem:
            yield Entry(f"{member.path} (member {number})", rejected=member.problem[0], detail=member.problem[1])
        elif ignored:
            yield Entry(member.path, ignored=ignored)
        else:
            file = folder / member.path
            try:
                data = files.read(member.path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            except OSError as error:
                yield Entry(member.path, rejected="unreadable", detail=str(error))


def _opened(folder: Path, open_folder: OpenFolder, wrappers: int) -> Source | None:
    source = open_folder(folder)
    inside = [item for item in folder.iterdir() if item.is_dir()]
    if source is None and len(inside) == 1 and wrappers:
        return _opened(inside[0], open_folder, wrappers - 1)
    return source


def _left_aside(path: str) -> str | None:
    return next(filter(None, map(aside, PurePosixPath(path).parts)), None)


def _remove(folder: Path, maker: int) -> None:
    if os.getpid() == maker:  # not in a fork
        shutil.rmtree(folder, ignore_errors=True)
