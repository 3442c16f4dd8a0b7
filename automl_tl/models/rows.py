"""Predictions as JSON lines, CSV or Parquet, and copies of images sorted into folders by predicted label."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Literal

from automl_tl.values import Prediction

__all__ = ["RowFormat", "copy_by_label", "copy_new", "open_rows"]

RowFormat = Literal["jsonl", "csv", "parquet"]
Write = Callable[[Prediction], None]
COLUMNS: Final = ("path", "label", "probability", "abstained", "error", "top")
ROWS_AT_ONCE: Final = 2000
WITHHELD_FOLDER: Final = "_withheld"


@contextmanager
def open_rows(row_format: RowFormat, target: Path | IO[str]) -> Iterator[Write]:
    """Open a file or stream for predictions.

    Args:
        row_format: of the rows.
        target: a path, or a text stream (not for ``parquet``).

    Yields:
        A function that writes one prediction.
    """
    if row_format == "parquet":
        assert isinstance(target, Path)
        with _parquet(target) as write:
            yield write
    elif isinstance(target, Path):
        with target.open("w", encoding="utf-8", newline="") as file:
            yield _text_writer(row_format, file)
    else:
        yield _text_writer(row_format, target)


def copy_by_label(predictions: Iterable[Prediction], read: Callable[[str], bytes], folder: Path) -> Iterator[Prediction]:
    """Copy each image to ``folder/<label>/`` and yield its prediction. Existing files are never overwritten.

    Images with a withheld prediction go to ``_withheld``; unreadable ones are not copied.

    Args:
        predictions: in any order.
        read: returns the bytes of a path.
        folder: to copy to.
    """
    for prediction in predictions:
        if prediction.error is None and prediction.label is not None:
            place = folder / (WITHHELD_FOLDER if prediction.abstained else _folder_name(prediction.label))
            copy_new(place, prediction.path, read(prediction.path))
        yield prediction


def _text_writer(row_format: str, file: IO[str]) -> Write:
    if row_format == "jsonl":

        def write_line(prediction: Prediction) -> None:
            file.write(prediction.model_dump_json() + "\n")

        return write_line
    rows = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    rows.writeheader()
    return lambda prediction: rows.writerow(_row(prediction))


@contextmanager
def _parquet(target: Path) -> Iterator[Write]:
    import pyarrow as arrow
    from pyarrow import parquet

    schema = arrow.schema([(name, arrow.float64() if name == "probability" else arrow.string()) for name in COLUMNS])
    waiting: list[dict[str, Any]] = []
    with parquet.ParquetWriter(target, schema) as file:

        def write(prediction: Prediction) -> None:
            waiting.append(_row(prediction))
            if len(waiting) >= ROWS_AT_ONCE:
                flush()

        def flush() -> None:
            file.write_table(arrow.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        yield write
        flush()


def _row(prediction: Prediction) -> dict[str, Any]:
    return {**prediction.model_dump(exclude={"top"}), "top": json.dumps(prediction.top, ensure_ascii=False)}


def _folder_name(label: str) -> str:
    """Turn any label into a valid folder name."""
    plain = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", label).strip(" .")
    return plain[:100] or "_"


def _file_name(path: str) -> str:
    return re.sub(r"[\x00-\x1f/\\]", "_", re.split(r"[/\\]", path)[-1]) or "image"


def copy_new(folder: Path, path: str, data: bytes) -> None:
    """Write a file under the last part of a path, with ``(2)``, ``(3)`` ... appended if that exists.

    Args:
        folder: to write to; created if missing.
        path: whose last part becomes the name.
        data: contents.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = _file_name(path)
    stem, suffix = Path(name).stem, Path(name).suffix
    number = 1
    while True:
        target = folder / (name if number == 1 else f"{stem} ({number}){suffix}")
        try:
            with target.open("xb") as file:
                file.write(data)
        except FileExistsError:
            number += 1
        else:
            return
