"""Using a registered model: withheld answers, explanations, reports, drift, one row per file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import LITE0, Tl
from tests.fakes import write_colors


@pytest.fixture
def fitted(tl: Tl, colors: Path) -> Path:
    tl("auto", "fit", colors, *LITE0, "--json")
    return colors


def test_a_fit_writes_the_same_report_as_the_command(tl: Tl, colors: Path, tmp_path: Path) -> None:
    outcome = tl("auto", "fit", colors, *LITE0, "--json").json

    tl("report", "color-cards", "--images", colors, "--out", tmp_path / "again.html")

    page = Path(outcome["report"]).read_text()
    assert page == (tmp_path / "again.html").read_text()
    assert all(f"<h2>{heading}</h2>" in page for heading in ("Data", "Plan", "Evaluation", "Provenance"))


def test_a_fit_without_time_left_says_how_to_get_the_report(tl: Tl, colors: Path) -> None:
    ended = tl("auto", "fit", colors, *LITE0, "--strategy", "linear_probe", "--budget", "1s", "--json")

    assert ended.json["report"] is None
    assert "tl report color-cards@1" in ended.err


def test_predict_explain_report_and_drift_use_what_the_fit_remembered(tl: Tl, fitted: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    write_colors(mixed, 2)
    (mixed / "notes.txt").write_text("no picture")
    (mixed / "empty.jpg").write_bytes(b"")

    rows = [json.loads(line) for line in tl("predict", "color-cards", mixed, "--json").out.splitlines()]
    explained = tl("explain", "color-cards", mixed / "red", "--out", tmp_path / "why", "--images", fitted, "--json").json
    told = tl("report", "color-cards", "--out", tmp_path / "report.html", "--images", fitted, "--json").json
    refused = tl("predict", "color-cards", fitted, "--max-error", "1%")
    drift = tl("data", "drift", "color-cards", mixed, "--json").json

    assert len(rows) == 6
    assert [bool(row["error"]) for row in rows].count(True) == 2
    assert len(explained) == 2
    assert (tmp_path / "why" / "explanation.html").stat().st_size > 2000
    assert Path(explained[0]["heatmap"]).is_file()
    assert told["evaluation"]["num_images"] >= 4
    assert "color-cards@1" in (tmp_path / "report.html").read_text()
    assert drift["num_images"] == 4
    assert (refused.code, "can't be guaranteed" in refused.err) == (4, True)


def test_evaluate_says_which_images_the_model_learned_from_and_which_files_can_not_be_used(
    tl: Tl, fitted: Path, tmp_path: Path
) -> None:
    outcome = tl("registry", "show", "color-cards", "--json").json["facts"]["data"]["counts"]
    others = write_colors(tmp_path / "others", 2, seed=7)
    (others / "red" / "broken.png").write_bytes(b"no picture")

    own, new = (tl("evaluate", "color-cards", images, "--json") for images in (fitted, others))

    assert own.json["num_training_images"] == outcome["train"] + outcome["validation"] < own.json["num_images"]
    assert f"{own.json['num_training_images']} of these 24 images are training images" in own.err
    assert (new.json["num_training_images"], new.json["num_images"], "training images" in new.err) == (0, 4, False)
    assert [row["path"] for row in new.json["rejected"]] == ["red/broken.png"]
    assert "1 files left out because they cannot be used: red/broken.png" in new.err
