"""The benchmark: one real cell, measured once; failures are rows; pages and tables hold every cell."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from automl_tl.cli.app import app
from automl_tl.reports import render_bench
from automl_tl.values import BenchCell
from tests.fakes import write_colors
from tests.toy_plugin import TOY, toy_backbone

FAILED = BenchCell(images="images", backbone="a/backbone", strategy="<b>broken</b>", seed=0, error="it <fell> over")


def test_render_bench_escapes_names_and_errors() -> None:
    finished = {
        "accuracy": 0.9,
        "interval": (0.8, 0.95),
        "balanced_accuracy": 0.512,
        "seconds": 12.0,
        "latency_ms": 20.0,
        "size_mib": 13.0,
    }
    cell = BenchCell.model_validate({**FAILED.model_dump(), "strategy": "tail", "error": None, **finished})

    page = render_bench([cell, FAILED])

    assert page.index("tail") < page.index("&lt;b&gt;broken")
    assert "it &lt;fell&gt; over" in page
    assert "51.2%" in page
    assert "<b>broken" not in page
    assert "http:" not in page
    assert "https:" not in page


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[None]:
    with toy_backbone(tmp_path):
        yield


@pytest.mark.integration
@pytest.mark.usefixtures("toy")
def test_bench_measures_only_unfinished_cells(tmp_path: Path) -> None:
    images = write_colors(tmp_path / "colors", 12)
    arguments = ["bench", str(images), "--backbone", TOY, "--out", str(tmp_path / "bench"), "--json"]
    command = [*arguments, "--strategy", "linear_probe"]

    (cell,) = json.loads(CliRunner().invoke(app, command).stdout)
    (file,) = (tmp_path / "bench" / "cells").rglob("*.json")
    file.write_text(json.dumps(cell | {"accuracy": 0.5}))
    (again,) = json.loads(CliRunner().invoke(app, command).stdout)

    assert cell["error"] is None
    assert cell["accuracy"] >= 0.8
    assert cell["num_test"] >= 4
    assert cell["seconds"] > 0
    assert cell["memory_mib"] > 100
    assert again["accuracy"] == 0.5
    assert (tmp_path / "bench" / "bench.html").is_file()
    (row,) = csv.DictReader((tmp_path / "bench" / "bench.csv").read_text().splitlines())
    assert row["strategy"] == "linear_probe"
