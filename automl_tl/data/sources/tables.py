"""Tables that hold the encoded images themselves: Hugging Face data sets, saved to disk (Arrow) or as Parquet.

Read with pyarrow alone. Arrow files are memory-mapped; the images of Parquet, which can't be had one by one, are copied
once into a temporary file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from automl_tl.data.sources.source import PART_NAMES, Entry, Source
from automl_tl.data.sources.spool import Spool
from automl_tl.errors import BrokenSourceError
from automl_tl.values import SplitName

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TableSource", "holds_images", "saved_tables"]

IMAGE_COLUMNS: Final = ("image", "img", "picture")
LABEL_COLUMNS: Final = ("label", "labels", "fine_label", "class", "class_name")
EXPECTED: Final = "a column of images with embedded bytes and a column of labels"
READ_BYTES: Final = 2**20
WORDS: Final = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns hold what, and the names of the classes if labels are numbers of such."""

    image: str
    label: str
    class_names: tuple[str, ...] = ()


@final
class TableSource(Source):
    """Rows of Arrow or Parquet files; a row is an entry called ``<file>/<row number>``."""

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        self.kind = "parquet" if files[0].suffix == ".parquet" else "arrow"
        self._folder = root if root.is_dir() else root.parent
        self._files = tuple(sorted(str(file.relative_to(self._folder).as_posix()) for file in files))
        self._columns = {file: _columns(_schema(self._folder / file), self._folder / file) for file in self._files}
        self._spool = Spool() if self.kind == "parquet" else None

    def entries(self) -> Iterator[Entry]:
        """Every row of every file."""
        for file in self._files:
            columns, part, row = self._columns[file], _part(file), 0
            for batch in _batches(self._folder / file, columns):
                for data, label in zip(_bytes(batch.column(0)), batch.column(1).to_pylist(), strict=True):
                    yield self._entry(f"{file}/{row:07}", data, _name(label, columns.class_names), part)
                    row += 1

    def read(self, path: str) -> bytes:
        """The bytes in the row."""
        if self._spool:
            return self._spool.read(path)
        file, row = path.rsplit("/", 1)
        cell = _image_column(self._folder / file, self._columns[file].image)[int(row)]
        return bytes(cell.as_buffer())

    def class_names(self) -> tuple[str, ...]:
        """Names of all classes, if the tables tell them."""
        return tuple(sorted({name for columns in self._columns.values() for name in columns.class_names}))

    def _entry(self, path: str, data: pa.Scalar, label: str | None, part: SplitName | None) -> Entry:
        if not data.is_valid:
            return Entry(path, label=label, split=part, rejected="no_bytes", detail="the row holds no image bytes")
        if self._spool and path not in self._spool:
            self._spool.put(path, data.as_buffer())
        if label is None:
            return Entry(path, split=part, rejected="no_label", detail="the row holds no label")
        return Entry(path, label=label, split=part)


def holds_images(file: Path) -> bool:
    """Whether a Parquet file has images in it and labels for them."""
    try:
        _columns(_schema(file), file)
    except (BrokenSourceError, OSError, ValueError):
        return False
    return True


def saved_tables(folder: Path) -> list[Path]:
    """Arrow files of a data set that ``datasets.save_to_disk`` wrote to ``folder``; none if it is none."""
    if (folder / "dataset_dict.json").is_file():
        return [file for inside in sorted(folder.iterdir()) if inside.is_dir() for file in saved_tables(inside)]
    return sorted(folder.glob("data-*.arrow")) if (folder / "state.json").is_file() else []


def _schema(file: Path) -> pa.Schema:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ".parquet":
        return pq.read_schema(file)
    with pa.memory_map(str(file)) as mapped:
        return pa.ipc.open_stream(mapped).schema


def _batches(file: Path, columns: _Columns) -> Iterator[pa.RecordBatch]:
    """Record batches of two columns: image bytes and labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ".parquet":
        opened = pq.ParquetFile(file, pre_buffer=False, buffer_size=READ_BYTES)  # else a row group at once, of any size
        for batch in opened.iter_batches(batch_size=64, columns=[columns.image, columns.label]):
            yield batch.select([columns.image, columns.label])
        return
    with pa.memory_map(str(file)) as mapped:
        for batch in pa.ipc.open_stream(mapped):
            yield batch.select([columns.image, columns.label])


def _bytes(column: pa.Array) -> pa.Array:
    """The bytes of a column of images, which are plain or in a struct beside a path."""
    import pyarrow as pa

    return column.field("bytes") if pa.types.is_struct(column.type) else column


@lru_cache(maxsize=64)
def _image_column(file: Path, name: str) -> pa.ChunkedArray:
    import pyarrow as pa

    table = pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
    chunks = [_bytes(chunk) for chunk in table.column(name).chunks]
    return pa.chunked_array(chunks)


def _columns(schema: pa.Schema, file: Path) -> _Columns:
    names = [str(name) for name in schema.names]
    features = _features(schema.metadata or {})
    images = [name for name in names if features.get(name, {}).get("_type") == "Image"]
    images += [name for name in names if _is_image(schema.field(name))]
    labels: list[str] = [name for name in LABEL_COLUMNS if name in names]
    labels += [name for name in names if features.get(name, {}).get("_type") == "ClassLabel"]
    if not images or not labels:
        raise BrokenSourceError(file, f"the columns are {', '.join(names)}", EXPECTED)
    named = features.get(labels[0], {}).get("names") or ()
    return _Columns(images[0], labels[0], tuple(str(name) for name in named))


def _is_image(field: pa.Field) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(field.type):
        return any(inner.name == "bytes" for inner in field.type)
    return field.name in IMAGE_COLUMNS and (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type))


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """What the ``datasets`` library wrote about the columns."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: about for name, about in features.items() if isinstance(about, dict)}


def _name(label: object, class_names: Sequence[str]) -> str | None:
    if label is None or label == -1:  # the datasets library's word for: unknown
        return None
    if isinstance(label, int) and 0 <= label < len(class_names):
        return class_names[label]
    return str(label)


def _part(file: str) -> SplitName | None:
    return next((PART_NAMES[word] for word in WORDS.findall(file.lower()) if word in PART_NAMES), None)
