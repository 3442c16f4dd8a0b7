"""Tables that hold the encoded images themselves: Hugging Face data sets, saved to disk (Arrow) or as Parquet.

Arrow files are memory-mapped; Parquet, whose rows can't be read one by one, is copied once into temporary Arrow files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from weakref import finalize

from automl_tl.data.sources.source import Entry, Source, split_in_name, temporary_folder
from automl_tl.errors import BrokenSourceError

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_COLUMNS: Final = ("image", "img", "picture")
LABEL_COLUMNS: Final = ("label", "labels", "fine_label", "class", "class_name")
EXPECTED: Final = "a column of images with embedded bytes and a column of labels"
READ_BYTES: Final = 2**20
BATCH_ROWS: Final = 64


def open_tables(folder: Path) -> Source | None:
    """The data set that ``datasets`` saved to a folder, or the Parquet files with images there, if any."""
    if saved := _saved_tables(folder):
        return TableSource(folder, saved)
    files = sorted(file for pattern in ("*.parquet", "*/*.parquet") for file in folder.glob(pattern))
    return TableSource(folder, files) if files and _has_images(files[0]) else None


def open_parquet(file: Path) -> Source | None:
    """The images in a Parquet file; ``None`` if it has no columns of images and labels."""
    return TableSource(file, [file]) if _has_images(file) else None


def _saved_tables(folder: Path) -> list[Path]:
    if (folder / "dataset_dict.json").is_file():
        return [file for item in sorted(folder.iterdir()) if item.is_dir() for file in _saved_tables(item)]
    return sorted(folder.glob("data-*.arrow")) if (folder / "state.json").is_file() else []


def _has_images(file: Path) -> bool:
    try:
        _find_columns(file)
    except (BrokenSourceError, OSError, ValueError):
        return False
    return True


class _Columns(NamedTuple):
    """Names of the columns, and of the classes if labels are their numbers."""

    image: str
    label: str
    class_names: tuple[str, ...] = ()


@final
class TableSource(Source):
    """Rows of Arrow or Parquet files; a row is an entry called ``<file>/<row number>``."""

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        self.kind = "parquet" if files[0].suffix == ".parquet" else "arrow"
        self._folder = folder = root if root.is_dir() else root.parent
        self._columns: dict[str, _Columns] = {}
        if self.kind == "parquet":
            self._folder = temporary_folder(self)
            finalize(self, _map_columns.cache_clear)  # runs first: Windows removes no file that is mapped
        for name in sorted(file.relative_to(folder).as_posix() for file in files):
            try:
                self._columns[name] = columns = _find_columns(folder / name)
                if self.kind == "parquet":
                    _write_arrow(folder / name, self._folder / name, columns)
            except (OSError, ValueError) as error:  # parents of pyarrow's errors
                raise BrokenSourceError(folder / name, f"the table can't be read ({error})", EXPECTED) from error

    def entries(self) -> Iterator[Entry]:
        """Every row of every file."""
        for file, columns in self._columns.items():
            split = split_in_name(file)
            images, labels = _map_columns(self._folder / file, columns)
            for row, (image, value) in enumerate(zip(images, labels, strict=True)):
                path, label = f"{file}/{row:07}", _to_name(value.as_py(), columns.class_names)
                if not image.is_valid:
                    yield Entry(path, label, split, rejected="no_bytes", detail="the row holds no image bytes")
                elif label is None:
                    yield Entry(path, split=split, rejected="no_label", detail="the row holds no label")
                else:
                    yield Entry(path, label, split)

    def read(self, path: str) -> bytes:
        """The bytes in the row."""
        file, row = path.rsplit("/", 1)
        images, _ = _map_columns(self._folder / file, self._columns[file])
        return bytes(images[int(row)].as_buffer())

    def class_names(self) -> tuple[str, ...]:
        """Names of all classes, if the tables have them."""
        return tuple(sorted({name for columns in self._columns.values() for name in columns.class_names}))


def _write_arrow(parquet: Path, target: Path, columns: _Columns) -> None:
    """Copy the columns of images and labels, a few rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target.parent.mkdir(parents=True, exist_ok=True)
    names = [columns.image, columns.label]
    with pq.ParquetFile(parquet, pre_buffer=False, buffer_size=READ_BYTES) as file:  # else a row group at once, of any size
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
                stream.write_batch(batch.select(names))


@lru_cache(maxsize=64)
def _map_columns(file: Path, columns: _Columns) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Image bytes and labels of an Arrow file, mapped to memory."""
    import pyarrow as pa

    table = pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
    images = table.column(columns.image)
    if pa.types.is_struct(images.type):  # bytes beside a path
        images = pa.chunked_array([chunk.field("bytes") for chunk in images.chunks], images.type.field("bytes").type)
    return images, table.column(columns.label)


def _find_columns(file: Path) -> _Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ".parquet":
        schema = pq.read_schema(file)
    else:
        with pa.memory_map(str(file)) as mapped:
            schema = pa.ipc.open_stream(mapped).schema
    names = [str(name) for name in schema.names]
    features = _read_features(schema.metadata or {})
    images = [name for name in names if features.get(name, {}).get("_type") == "Image"]
    images += [name for name in names if _is_image(schema.field(name))]
    labels: list[str] = [name for name in LABEL_COLUMNS if name in names]
    labels += [name for name in names if features.get(name, {}).get("_type") == "ClassLabel"]
    if not images or not labels:
        raise BrokenSourceError(file, f"the columns are {', '.join(names)}", EXPECTED)
    class_names = features.get(labels[0], {}).get("names") or ()
    return _Columns(images[0], labels[0], tuple(str(name) for name in class_names))


def _is_image(field: pa.Field) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(field.type):
        return any(inner.name == "bytes" for inner in field.type)
    return field.name in IMAGE_COLUMNS and (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type))


def _read_features(metadata: Mapping[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """What the ``datasets`` library wrote about the columns."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _to_name(label: object, class_names: Sequence[str]) -> str | None:
    if label is None or label == -1:  # `datasets` writes -1 for unknown
        return None
    if isinstance(label, int) and 0 <= label < len(class_names):
        return class_names[label]
    return str(label)
