from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from pyarrow import parquet

from automl_tl.data.image_inputs import NamedImage
from automl_tl.models.rows import copy_by_label, open_rows
from automl_tl.values import Prediction

CLASSES = ("ant, <b>", "bee")
ROWS = (
    Prediction(path="a/1.jpg", label="ant, <b>", probability=0.9, top={"ant, <b>": 0.9, "bee": 0.1}),
    Prediction(path="b/1.jpg", label="bee", probability=0.6, top={"bee": 0.6}, abstained="only 60% sure"),
    Prediction(path="c.jpg", error="empty: the file has 0 bytes"),
    Prediction(path="d/1.jpg", label="ant, <b>", probability=0.8, top={"ant, <b>": 0.8}),
)


def test_rows_are_equal_in_every_format(tmp_path: Path) -> None:
    lines = io.StringIO()
    with (
        open_rows("jsonl", lines) as write_line,
        open_rows("csv", tmp_path / "rows.csv") as write_csv,
        open_rows("parquet", tmp_path / "rows.parquet") as write_parquet,
    ):
        for row in ROWS:
            for write in (write_line, write_csv, write_parquet):
                write(row)

    assert [Prediction.model_validate_json(line) for line in lines.getvalue().splitlines()] == list(ROWS)
    with (tmp_path / "rows.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    columns = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["label"] for row in table] == [row.label or "" for row in ROWS]
    assert [row["probability"] for row in columns] == [row.probability for row in ROWS]
    assert json.loads(columns[0]["top"]) == ROWS[0].top


def test_copy_by_label_overwrites_nothing(tmp_path: Path) -> None:
    rows = [(row, NamedImage(row.path, row.path.encode)) for row in ROWS]

    copied_rows = list(copy_by_label(rows, tmp_path / "sorted", CLASSES))

    copied = {str(file.relative_to(tmp_path / "sorted")): file.read_text() for file in (tmp_path / "sorted").rglob("*.jpg")}
    assert copied_rows == rows
    assert copied == {"ant, %3Cb%3E/1.jpg": "a/1.jpg", "ant, %3Cb%3E/1 (2).jpg": "d/1.jpg", "_withheld/1.jpg": "b/1.jpg"}


@pytest.mark.parametrize("label", ["..", "/etc", "a/../..", "\x00", "...", "C:\\x"])
def test_copy_by_label_stays_in_folder(label: str, tmp_path: Path) -> None:
    row = Prediction(path="../../x.jpg", label=label, probability=1.0)

    list(copy_by_label([(row, NamedImage(row.path, lambda: b"x"))], tmp_path / "deep" / "sorted", (label,)))

    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.parent.parent == tmp_path / "deep" / "sorted"


@pytest.mark.parametrize("path", ["archive.zip/..", "a/.", "a/", "x" * 300 + ".jpg", "a\nb\x1b[1m.jpg", "NUL.jpg"])
def test_copy_by_label_makes_a_file_of_any_name(path: str, tmp_path: Path) -> None:
    rows = [(Prediction(path=path, label="bee", probability=1.0), NamedImage(path, lambda: b"x"))] * 2

    list(copy_by_label(rows, tmp_path, CLASSES))

    files = list((tmp_path / "bee").iterdir())
    assert len(files) == 2
    assert all(file.read_bytes() == b"x" for file in files)
    assert {file.suffix for file in files} <= {".jpg", ""}


def test_open_rows_writes_json_that_any_stream_carries() -> None:
    binary = io.BytesIO()
    row = Prediction(path="é.jpg", label="蜂 🐝", probability=1.0, top={"蜂 🐝": 1.0})

    with open_rows("jsonl", io.TextIOWrapper(binary, encoding="latin-1", write_through=True)) as write:
        write(row)

    assert binary.getvalue().isascii()
    assert Prediction.model_validate_json(binary.getvalue()) == row
