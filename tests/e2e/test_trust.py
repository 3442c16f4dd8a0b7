"""Use of a registered model: abstention, explanations, reports, drift, error rows."""

from __future__ import annotations

import json
from pathlib import Path

from automl_tl_registry import Registry
from tests.e2e.conftest import LITE0, Fitted, Tl
from tests.fakes import write_colors


def test_fit_writes_the_same_report_as_the_command(
    tl: Tl, fitted: Fitted, registry: Registry, colors: Path, tmp_path: Path
) -> None:
    tl("report", "color-cards@1", "--images", colors, "--out", tmp_path / "again.html")

    page = Path(fitted.outcomes[0]["report"]).read_text()
    assert page == (tmp_path / "again.html").read_text()
    assert all(f"<h2>{heading}</h2>" in page for heading in ("Data", "Plan", "Evaluation", "Provenance"))


def test_fit_without_time_left_says_how_to_get_the_report(tl: Tl, registry: Registry, colors: Path) -> None:
    ended = tl("auto", "fit", colors, *LITE0, "--strategy", "linear_probe", "--budget", "1s", "--json")

    assert ended.json["report"] is None
    assert "tl report color-cards@3" in ended.err


def test_predict_explain_report_and_drift_use_the_reference_data(
    tl: Tl, registry: Registry, colors: Path, tmp_path: Path
) -> None:
    mixed = write_colors(tmp_path / "mixed", 2)
    (mixed / "notes.txt").write_text("no image")
    (mixed / "empty.jpg").write_bytes(b"")

    rows = [json.loads(line) for line in tl("predict", "color-cards", mixed, "--json").out.splitlines()]
    explained = tl("explain", "color-cards", mixed / "red", "--out", tmp_path / "why", "--images", colors, "--json").json
    report = tl("report", "color-cards", "--out", tmp_path / "report.html", "--images", colors, "--json").json
    refused = tl("predict", "color-cards", colors, "--max-error", "1%")
    drift = tl("data", "drift", "color-cards", mixed, "--json").json

    assert len(rows) == 6
    assert [bool(row["error"]) for row in rows].count(True) == 2
    assert len(explained) == 2
    assert (tmp_path / "why" / "explanation.html").stat().st_size > 2000
    assert Path(explained[0]["heatmap"]).is_file()
    assert report["evaluation"]["num_images"] >= 4
    assert "color-cards@2" in (tmp_path / "report.html").read_text()
    assert drift["num_images"] == 4
    assert (refused.code, "can't be guaranteed" in refused.err) == (4, True)


def test_evaluate_counts_training_images_and_unusable_files(
    tl: Tl, fitted: Fitted, registry: Registry, colors: Path, tmp_path: Path
) -> None:
    counts = fitted.outcomes[0]["num_images"]
    others = write_colors(tmp_path / "others", 2, seed=7)
    (others / "red" / "broken.png").write_bytes(b"no image")

    own, new = (tl("evaluate", "color-cards", images, "--json") for images in (colors, others))

    assert own.json["num_training_images"] == counts["train"] + counts["validation"] < own.json["num_images"]
    assert f"{own.json['num_training_images']} of these 24 images are training images" in own.err
    assert (new.json["num_training_images"], new.json["num_images"], "training images" in new.err) == (0, 4, False)
    assert [row["path"] for row in new.json["rejected"]] == ["red/broken.png"]
    assert "red/broken.png" in new.err


def test_data_next_lists_new_images_and_copies_them(tl: Tl, registry: Registry, colors: Path, tmp_path: Path) -> None:
    pool = write_colors(tmp_path / "pool", 3, seed=11)
    known = next((colors / "red").iterdir())
    (pool / "known.png").write_bytes(known.read_bytes())
    (pool / "notes.txt").write_text("no image")

    chosen = tl("data", "next", "color-cards", pool, "--num", 4, "--out", tmp_path / "to-label", "--json")
    nothing = tl("data", "next", "color-cards", colors)

    assert (chosen.json["num_images"], chosen.json["num_known"], chosen.json["num_unreadable"]) == (6, 1, 1)
    assert len(chosen.json["images"]) == len(list((tmp_path / "to-label").iterdir())) == 4
    assert (nothing.code, "No image to label" in nothing.err) == (3, True)
