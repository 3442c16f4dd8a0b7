from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from automl_tl.errors import UnsatisfiableConstraintsError
from automl_tl.evaluation.memory import remember
from automl_tl.models.doubts import Doubts, doubts_for
from automl_tl.models.rows import copy_by_label, open_rows
from automl_tl.values import Prediction

ROWS = (
    Prediction(path="a/1.jpg", label="ant, <b>", probability=0.9, top={"ant, <b>": 0.9, "bee": 0.1}),
    Prediction(path="b/1.jpg", label="bee", probability=0.6, top={"bee": 0.6}, abstained="only 60% sure"),
    Prediction(path="c.jpg", error="empty: the file has 0 bytes"),
    Prediction(path="d/1.jpg", label="ant, <b>", probability=0.8, top={"ant, <b>": 0.8}),
)


def test_rows_are_the_same_in_every_format(tmp_path: Path) -> None:
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


def test_images_are_copied_by_label_and_nothing_is_overwritten(tmp_path: Path) -> None:
    told = list(copy_by_label(ROWS, lambda path: path.encode(), tmp_path / "sorted"))

    copied = {str(file.relative_to(tmp_path / "sorted")): file.read_text() for file in (tmp_path / "sorted").rglob("*.jpg")}
    assert told == list(ROWS)
    assert copied == {"ant, _b_/1.jpg": "a/1.jpg", "ant, _b_/1 (2).jpg": "d/1.jpg", "_not_sure/1.jpg": "b/1.jpg"}


@pytest.mark.parametrize("label", ["..", "/etc", "a/../..", "\x00", "...", "C:\\x"])
def test_no_label_leads_out_of_the_folder(label: str, tmp_path: Path) -> None:
    row = Prediction(path="../../x.jpg", label=label, probability=1.0)

    list(copy_by_label([row], lambda path: b"x", tmp_path / "deep" / "sorted"))

    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.parent.parent == tmp_path / "deep" / "sorted"


def test_an_answer_is_withheld_below_the_threshold_and_for_strangers() -> None:
    generator = np.random.default_rng(0)
    memory = remember(1 + 0.05 * generator.normal(size=(200, 8)), np.zeros(200, dtype=int), ("x",) * 200)
    held_out = np.repeat([0, 0, 1], [150, 40, 10]), np.repeat([[0.95, 0.05], [0.7, 0.3]], [150, 50], axis=0).astype(np.float32)
    doubts = doubts_for(memory, held_out, 0.05)

    features = np.stack([np.ones(8), np.ones(8), np.eye(8)[0]]).astype(np.float32)
    reasons = doubts.reasons(features, np.array([[0.95, 0.05], [0.7, 0.3], [0.99, 0.01]], dtype=np.float32))

    assert reasons[0] is None
    assert "only 70% sure" in (reasons[1] or "")
    assert "unlike anything in training" in (reasons[2] or "")


def test_without_doubts_everything_is_answered() -> None:
    assert Doubts().reasons(np.ones((2, 3), np.float32), np.full((2, 2), 0.5, np.float32)) == [None, None]


def test_a_promise_that_can_not_be_kept_names_one_that_can() -> None:
    held_out = np.zeros(100, dtype=np.int64), np.tile([0.9, 0.1], (100, 1)).astype(np.float32)

    with pytest.raises(UnsatisfiableConstraintsError, match=r"Try --max-error \d"):
        doubts_for(None, held_out, 0.001)
