"""From a folder of images to a registered model and its use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import automl_tl
from automl_tl.models import reference_predictions
from automl_tl_registry import Registry
from tests.e2e.conftest import LITE0, Fitted, Tl
from tests.fakes import colored_pixels


def test_fit_registers_a_model_that_predicts_and_evaluates(
    tl: Tl, fitted: Fitted, registry: Registry, colors: Path, tmp_path: Path
) -> None:
    outcome = fitted.outcomes[0]
    photo = tmp_path / "new.png"
    Image.fromarray(colored_pixels("red", np.random.default_rng(9))).save(photo)

    predicted = tl("predict", "color-cards", photo, "--json").json
    evaluated = tl("evaluate", "color-cards@1", colors, "--json").json
    listed = tl("registry", "list", "--json").json

    assert outcome["model"] == "color-cards@1"
    assert outcome["plan"]["backbone"] == "lite/efficientnet_lite0"
    assert outcome["plan"]["strategy"] == "linear_probe"
    assert outcome["plan"]["reasons"]
    assert outcome["test"]["num_images"] == outcome["num_images"]["test"] >= 4
    assert 0 <= outcome["test"]["interval"][0] <= outcome["test"]["accuracy"] <= outcome["test"]["interval"][1] <= 1
    assert outcome["seconds"] > 0
    assert predicted["path"] == str(photo)
    assert predicted["label"] == "red"
    assert predicted["probability"] > 0.5
    assert evaluated["num_images"] == 24
    assert {"accuracy", "interval", "macro_f1", "per_class", "headline", "warnings"} <= set(evaluated)
    assert {(row["name"], row["version"]): row["aliases"] for row in listed} == {
        ("color-cards", 1): ["production"],
        ("color-cards", 2): [],
    }
    assert {"created_at", "accuracy"} <= set(listed[0])


def test_fit_with_the_same_seed_reuses_activations_and_gives_the_same_model(fitted: Fitted) -> None:
    first, second = fitted.outcomes
    blobs = [version.blobs for version in Registry(fitted.home / "registry").versions()]

    assert first["model_digest"] == second["model_digest"]
    assert fitted.activations[0] == fitted.activations[1] != []
    assert len({version["encoder"].digest for version in blobs}) == 1
    assert sum(version["head"].size_bytes for version in blobs) < 2 * 100_000


def test_fit_runs_a_saved_plan_exactly(tl: Tl, fitted: Fitted, registry: Registry, colors: Path, tmp_path: Path) -> None:
    planned = tl("auto", "plan", colors, *LITE0, "--json")
    file = tmp_path / "plan.json"
    file.write_text(planned.out)

    outcome = tl("auto", "fit", colors, "--plan", file, "--json").json

    assert outcome["plan"] == planned.json
    assert outcome["model_digest"] == fitted.outcomes[0]["model_digest"]


def test_fit_keeps_the_constraints_of_a_saved_plan_except_the_budget(tl: Tl, colors: Path, tmp_path: Path) -> None:
    planned = tl("auto", "plan", colors, *LITE0, "--seed", "3", "--max-size", "90", "--budget", "5m", "--json")
    file = tmp_path / "plan.json"
    file.write_text(planned.out)

    outcome = tl("auto", "fit", colors, "--plan", file, "--budget", "10m", "--json").json

    assert outcome["plan"]["constraints"] == {**planned.json["constraints"], "budget_s": 600}


def test_fit_trains_the_last_blocks_with_the_requested_head(tl: Tl, registry: Registry, colors: Path) -> None:
    options = ("--strategy", "tail", "--option", "epochs=1", "--option", "views=1", "--head", "mlp:8", "--budget", "10m")

    outcome = tl("auto", "fit", colors, *LITE0, *options, "--json").json

    version = registry.resolve(outcome["model"])
    assert outcome["plan"]["strategy_options"]["epochs"] == 1
    assert outcome["seconds_by_step"]["training"] > 0
    assert "refit" in outcome["seconds_by_step"]
    assert outcome["plan"]["recipe"]["head"]["hidden_dims"] == [8]
    assert version.blobs["head"].size_bytes > 8 * 1280 * 4


def test_fit_publishes_nothing_that_predicts_differently_when_loaded(
    tl: Tl, registry: Registry, colors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_predictions, "TOLERANCE", -1.0)

    ended = tl("auto", "fit", colors, *LITE0)

    assert ended.code == 9
    assert "does not reproduce the reference predictions" in ended.err
    assert len(registry.versions()) == 2


def test_predict_gives_an_error_row_per_unreadable_file(tl: Tl, registry: Registry, colors: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")

    ended = tl("predict", "color-cards", tmp_path / "broken.jpg", colors / "red" / "000.png", "--json")
    absent = tl("predict", "color-cards", tmp_path / "absent.png")

    rows = [json.loads(line) for line in ended.out.strip().splitlines()]
    assert [bool(row["error"]) for row in rows] == [True, False]
    assert absent.code == 3
    assert "absent.png" in absent.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_predict_reports_a_full_disk_in_one_line(tl: Tl, registry: Registry, colors: Path) -> None:
    command = ("predict", "color-cards", colors / "red" / "000.png", "--out", "/dev/full", "--format")
    ended = [tl(*command, row_format) for row_format in ("jsonl", "csv", "parquet")]

    assert [result.code for result in ended] == [10, 10, 10]
    assert all("The disk is full" in result.err for result in ended)


def test_python_api_reads_like_the_command_line(registry: Registry, colors: Path) -> None:
    constraints = automl_tl.Constraints(backbones=("lite/efficientnet_lite0",))

    outcome = automl_tl.fit(str(colors), constraints=constraints)
    predictions = list(automl_tl.load("color-cards").predict([colors / "green" / "001.png"]))

    assert outcome.model == "color-cards@3"
    assert predictions[0].label == "green"
    assert automl_tl.plan(colors, constraints=constraints).profile.num_classes == 2
    assert automl_tl.evaluate("color-cards", colors).num_images == 24
