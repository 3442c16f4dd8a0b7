"""From a folder of images to a registered model and its use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import automl_tl
from automl_tl.models import reference_predictions
from automl_tl.values import Constraints
from automl_tl_registry import Registry
from tests.e2e.conftest import LITE0, Tl
from tests.fakes import colored_pixels, write_colors
from tests.reports.made_facts import made_plan


def test_a_fit_gives_a_model_that_predicts_is_measured_and_listed(tl: Tl, colors: Path, tmp_path: Path) -> None:
    outcome = tl("auto", "fit", colors, *LITE0, "--json").json
    photo = tmp_path / "new.png"
    Image.fromarray(colored_pixels("red", np.random.default_rng(9))).save(photo)

    predicted = tl("predict", "color-cards", photo, "--json").json
    measured = tl("evaluate", "color-cards@1", colors, "--json").json
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
    assert measured["num_images"] == 24
    assert {"accuracy", "interval", "macro_f1", "per_class"} <= set(measured)
    assert [(row["name"], row["version"], row["aliases"]) for row in listed] == [("color-cards", 1, [])]
    assert {"created_at", "accuracy"} <= set(listed[0])


def test_the_same_seed_gives_the_same_digest_from_the_cache_and_shares_the_encoder(tl: Tl, colors: Path, home: Path) -> None:
    first = tl("auto", "fit", colors, *LITE0, "--json").json
    cached = sorted((home / "cache" / "activations").rglob("*.npy"))

    second = tl("auto", "fit", colors, *LITE0, "--json").json

    blobs = [version.blobs for version in Registry(home / "registry").versions()]
    assert first["model_digest"] == second["model_digest"]
    assert sorted((home / "cache" / "activations").rglob("*.npy")) == cached
    assert len({each["encoder"].digest for each in blobs}) == 1
    assert sum(each["head"].size_bytes for each in blobs) < 2 * 100_000


def test_another_seed_splits_anew(tl: Tl, colors: Path) -> None:
    outcomes = [tl("auto", "fit", colors, *LITE0, "--seed", seed, "--json").json for seed in ("0", "1")]

    assert outcomes[0]["model_digest"] != outcomes[1]["model_digest"]


def test_a_given_test_part_is_what_is_measured(tl: Tl, tmp_path: Path) -> None:
    write_colors(tmp_path / "set" / "train", 10)
    write_colors(tmp_path / "set" / "test", 3, seed=5)

    outcome = tl("auto", "fit", tmp_path / "set", *LITE0, "--json").json

    assert outcome["test"]["num_images"] == 6
    assert outcome["num_images"]["train"] + outcome["num_images"]["validation"] == 20


def test_a_saved_plan_is_carried_out_again_exactly(tl: Tl, colors: Path, tmp_path: Path) -> None:
    planned = tl("auto", "plan", colors, *LITE0, "--seed", "3", "--json")
    file = tmp_path / "plan.json"
    file.write_text(planned.out)

    outcome = tl("auto", "fit", colors, "--plan", file, "--json").json

    assert outcome["plan"] == planned.json
    assert outcome["model_digest"] == tl("auto", "fit", colors, *LITE0, "--seed", "3", "--json").json["model_digest"]


@pytest.mark.parametrize(("options", "budget_s"), [((), 300), (("--budget", "1m"), 60)])
def test_a_saved_plan_keeps_its_constraints_and_its_budget_unless_another_is_given(
    tl: Tl, colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], budget_s: float
) -> None:
    monkeypatch.setattr(automl_tl, "fit", lambda images, **given: given["constraints"])
    file = tmp_path / "plan.json"
    file.write_text(made_plan().model_copy(update={"constraints": Constraints(budget_s=300, seed=3)}).model_dump_json())

    asked = tl("auto", "fit", colors, "--plan", file, *options, "--json").json

    assert (asked["budget_s"], asked["seed"]) == (budget_s, 3)


def test_a_bad_file_is_a_row_not_a_stop(tl: Tl, colors: Path, tmp_path: Path) -> None:
    tl("auto", "fit", colors, *LITE0)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")

    ended = tl("predict", "color-cards", tmp_path / "broken.jpg", colors / "red" / "000.png", "--json")
    absent = tl("predict", "color-cards", tmp_path / "absent.png")

    rows = [json.loads(line) for line in ended.out.strip().splitlines()]
    assert [bool(row["error"]) for row in rows] == [True, False]
    assert absent.code == 3
    assert "absent.png" in absent.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_full_disk_is_one_line(tl: Tl, colors: Path) -> None:
    tl("auto", "fit", colors, *LITE0)

    to_nowhere = ("predict", "color-cards", colors / "red" / "000.png", "--out", "/dev/full", "--format")
    ended = [tl(*to_nowhere, row_format) for row_format in ("jsonl", "csv", "parquet")]

    assert [each.code for each in ended] == [10, 10, 10]
    assert all("The disk is full" in each.err for each in ended)


def test_python_reads_like_the_command_line(colors: Path) -> None:
    outcome = automl_tl.fit(colors, constraints=automl_tl.Constraints(backbones=("lite/efficientnet_lite0",)))
    predictions = list(automl_tl.load("color-cards").predict([colors / "green" / "001.png"]))

    assert outcome.model == "color-cards@1"
    assert predictions[0].label == "green"
    assert automl_tl.plan(colors).profile.num_classes == 2
    assert automl_tl.evaluate("color-cards", colors).num_images == 24


def test_a_model_that_predicts_something_else_when_loaded_again_is_not_published(
    tl: Tl, colors: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_predictions, "TOLERANCE", -1.0)

    ended = tl("auto", "fit", colors, *LITE0)

    assert ended.code == 9
    assert "does not reproduce the reference predictions" in ended.err
    assert Registry(home / "registry").versions() == []


def test_the_last_blocks_are_trained_within_a_budget_and_the_better_of_probe_and_tail_is_kept(tl: Tl, colors: Path) -> None:
    options = ("--strategy", "tail", "--option", "epochs=2", "--option", "views=2", "--budget", "10m")

    outcome = tl("auto", "fit", colors, *LITE0, *options, "--json").json

    kept_probe = any("the linear probe is kept" in note for note in outcome["notes"])
    assert outcome["plan"]["strategy_options"]["epochs"] == 2
    assert outcome["seconds_by_step"]["training"] > 0
    assert ("refit" in outcome["seconds_by_step"]) is not kept_probe


def test_a_head_of_several_layers_is_what_was_asked_for(tl: Tl, colors: Path, home: Path) -> None:
    outcome = tl("auto", "fit", colors, *LITE0, "--head", "mlp:8", "--json").json

    version = Registry(home / "registry").resolve(outcome["model"])
    assert outcome["plan"]["recipe"]["head"]["hidden_dims"] == [8]
    assert version.blobs["head"].size_bytes > 8 * 1280 * 4
