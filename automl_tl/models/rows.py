"""Predictions as records and tables, as JSON lines, CSV or Parquet, and copies of images sorted into folders by label."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from automl_tl.data.image_inputs import NamedImage
from automl_tl.runtime.file_names import file_name, folder_names
from automl_tl.runtime.formatting import encodable_json
from automl_tl.runtime.resources import writing_to
from automl_tl.values import Prediction

if TYPE_CHECKING:
    import pandas
    import pyarrow

RowFormat = Literal["jsonl", "csv", "parquet"]
Write = Callable[[Prediction], object]
COLUMNS: Final = ("path", "label", "probability", "abstained", "error", "top")
ROWS_AT_ONCE: Final = 2000
WITHHELD_FOLDER: Final = "_withheld"


class Predictions(Iterator[Prediction]):
    """Predictions in the order of the images, made as they are consumed; the conversions consume all that are left."""

    def __init__(self, rows: Iterable[Prediction]) -> None:
        self._rows = iter(rows)

    def __next__(self) -> Prediction:
        return next(self._rows)

    def to_list(self) -> list[Prediction]:
        """Return the predictions."""
        return list(self._rows)

    def to_records(self) -> list[dict[str, Any]]:
        """Return one dictionary per prediction, as ``tl predict --json`` prints them."""
        return [prediction.model_dump() for prediction in self._rows]

    def to_arrow(self) -> pyarrow.Table:
        """Return an Arrow table with the columns of ``tl predict --format parquet``; ``top`` is JSON."""
        import pyarrow as arrow

        return arrow.Table.from_pylist([_row(prediction) for prediction in self._rows], schema=_schema())

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame with the columns of ``to_arrow``; needs pandas."""
        return self.to_arrow().to_pandas()


@contextmanager
def open_rows(row_format: RowFormat, target: Path | TextIO) -> Iterator[Write]:
    """Open a file of predictions and yield a function that writes one of them.

    Args:
        row_format: JSON lines, CSV with a header, or Parquet.
        target: to write to; a text stream only for JSON lines and CSV.
    """
    if row_format == "parquet":
        assert isinstance(target, Path)
        with _parquet(target) as write:
            yield write
        return
    with target.open("w", encoding="utf-8", newline="") if isinstance(target, Path) else nullcontext(target) as file:
        if row_format == "jsonl":
            yield lambda prediction: file.write(encodable_json(prediction.model_dump_json(), file.encoding) + "\n")
        else:
            rows = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            rows.writeheader()
            yield lambda prediction: rows.writerow(_row(prediction))


@contextmanager
def _parquet(target: Path) -> Iterator[Write]:
    import pyarrow as arrow
    from pyarrow import parquet

    schema = _schema()
    waiting: list[dict[str, Any]] = []
    with target.open("wb") as opened, parquet.ParquetWriter(opened, schema) as file:

        def flush() -> None:
            file.write_table(arrow.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        def write(prediction: Prediction) -> None:
            waiting.append(_row(prediction))
            if len(waiting) >= ROWS_AT_ONCE:
                flush()

        yield write
        flush()


def _schema() -> pyarrow.Schema:
    import pyarrow as arrow

    return arrow.schema([(name, arrow.float64() if name == "probability" else arrow.string()) for name in COLUMNS])


def _row(prediction: Prediction) -> dict[str, Any]:
    return {**prediction.model_dump(exclude={"top"}), "top": json.dumps(prediction.top, ensure_ascii=False, allow_nan=False)}


def copy_by_label(
    predictions: Iterable[tuple[Prediction, NamedImage]], folder: Path, classes: Sequence[str]
) -> Iterator[tuple[Prediction, NamedImage]]:
    """Copy each image to a folder named by its label and yield it again. Existing files are never overwritten.

    Args:
        predictions: with their images; those withheld are copied to ``_withheld``; error rows are only passed on.
        folder: parent of the folders.
        classes: of the model; each has a folder of its own, and none has the name ``_withheld``.
    """
    names = folder_names(classes, taken=[WITHHELD_FOLDER])
    for prediction, image in predictions:
        if prediction.error is None and prediction.label is not None:
            name = WITHHELD_FOLDER if prediction.abstained else names[prediction.label]
            copy_new(folder / name, prediction.path, image.read())
        yield prediction, image


def copy_new(folder: Path, path: str, data: bytes) -> None:
    """Write a file without overwriting another.

    Args:
        folder: to write to; created if missing.
        path: the last name in it becomes the file's, with ``(2)``, ``(3)`` ... appended if that exists.
        data: content.
    """
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        name = Path(file_name(re.split(r"[/\\]", path)[-1]))
        for number in count(1):
            try:
                with (folder / (name if number == 1 else f"{name.stem} ({number}){name.suffix}")).open("xb") as file:
                    file.write(data)
                return
            except FileExistsError:
                continue
