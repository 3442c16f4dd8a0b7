"""The benchmark: cells are kept and not measured twice, a failed one doesn't stop the others, the page holds them all."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from automl_tl.cli.app import app
from automl_tl.reports.bench_page import ranked, write_page
from automl_tl.values import BenchCell
from automl_tl.workflows import bench as running
from automl_tl.workflows.bench import Question, read_cell, write_cell
from tests.fakes import write_colors

QUESTION = Question(images=Path("somewhere/images"), backbone="a/backbone", strategy="probe")


def cell(accuracy: float = 0.9, **changes: object) -> BenchCell:
    facts = {
        "images": "images",
        "backbone": "a/backbone",
        "strategy": "probe",
        "seed": 0,
        "accuracy": accuracy,
        "interval": (accuracy - 0.05, accuracy + 0.05),
        "num_test": 10,
        "right": "1111111110",
        "seconds": 12.0,
        "latency_ms": 20.0,
        "latency_4_ms": 60.0,
        "memory_mib": 900.0,
        "size_mib": 13.0,
    }
    return BenchCell.model_validate(facts | changes)


FAILED = BenchCell(images="images", backbone="a/backbone", strategy="<b>broken</b>", seed=0, error="it <fell> over")


def test_a_question_is_known_by_what_it_asks_not_by_where_the_images_are() -> None:
    assert QUESTION.file_name == QUESTION.model_copy(update={"images": Path("elsewhere/images")}).file_name
    assert QUESTION.file_name != QUESTION.model_copy(update={"seed": 1}).file_name


def test_other_images_in_a_folder_of_the_same_name_are_another_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, more = (write_colors(tmp_path / place / "images", count) for place, count in (("a", 2), ("b", 3)))
    first, second = (QUESTION.model_copy(update={"images": folder}) for folder in (few, more))
    monkeypatch.chdir(few)
    here = QUESTION.model_copy(update={"images": Path()})

    assert first.file_name == here.file_name != second.file_name
    assert here.images_name == "images"


def test_run_cells_measures_only_new_and_failed_cells(tmp_path: Path) -> None:
    other = QUESTION.model_copy(update={"strategy": "other"})
    asked: list[str] = []

    def measured(question: Question) -> BenchCell:
        asked.append(question.strategy)
        return FAILED if question.strategy == "other" else cell()

    for _ in range(2):
        list(running.run_cells([QUESTION, other], tmp_path, measure=measured))

    assert asked == ["probe", "other", "other"]


def test_a_damaged_answer_is_no_answer(tmp_path: Path) -> None:
    write_cell(tmp_path, QUESTION, cell())
    assert read_cell(tmp_path, QUESTION) == cell()

    (tmp_path / QUESTION.file_name).write_text("{")

    assert read_cell(tmp_path, QUESTION) is None


def test_the_page_and_the_tables_hold_every_cell_and_escape_what_comes_from_outside(tmp_path: Path) -> None:
    cells = [FAILED, cell(0.8, strategy="tail"), cell(0.9)]

    page = write_page(cells, tmp_path).read_text()

    assert [each.strategy for each in ranked(cells)] == ["probe", "tail", "<b>broken</b>"]
    assert "&lt;b&gt;broken" in page
    assert "<b>broken" not in page
    assert "http:" not in page
    assert "https:" not in page
    rows = list(csv.DictReader((tmp_path / "bench.csv").read_text().splitlines()))
    assert [row["accuracy"] for row in rows] == ["0.9", "0.8", ""]
    assert [each["strategy"] for each in json.loads((tmp_path / "bench.json").read_text())] == [r["strategy"] for r in rows]


@pytest.mark.slow
def test_tl_bench_measures_a_real_cell_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = write_colors(tmp_path / "colors", 12)
    arguments = ["bench", str(images), "--backbone", "lite/efficientnet_lite0", "--strategy", "linear_probe", "--json"]

    first, second = (json.loads(CliRunner().invoke(app, arguments).stdout) for _ in range(2))

    assert first == second
    assert first[0]["error"] is None
    assert first[0]["accuracy"] >= 0.8
    assert first[0]["num_test"] == len(first[0]["right"])
    assert first[0]["latency_4_ms"] > first[0]["latency_ms"] > 0
    assert first[0]["memory_mib"] > 100
    assert (tmp_path / "bench" / "bench.html").is_file()
