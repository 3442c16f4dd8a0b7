"""Rendering of values on the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from automl_tl.cli.render import print_json, result, show_evaluation, show_plan, show_predictions, table
from automl_tl.evaluation import evaluate
from automl_tl.values import Constraints, Prediction
from tests.reports.example_facts import example_plan


def test_show_plan_starts_with_a_summary_of_the_images(capsys: pytest.CaptureFixture[str]) -> None:
    plan = example_plan()
    counts = plan.profile.images_per_class | {next(iter(plan.profile.images_per_class)): 90}

    show_plan(plan)
    equal = " ".join(capsys.readouterr().out.split())
    show_plan(plan.model_copy(update={"profile": plan.profile.model_copy(update={"images_per_class": counts})}))
    unequal = " ".join(capsys.readouterr().out.split())

    summary = "median shorter side 200 px · 100% grayscale tail on lite/efficientnet_lite0"
    assert equal.startswith(f"180 training and validation images, 180 test images · 6 classes with 30 images · {summary}")
    assert "6 classes with 30 to 90 images ·" in unequal


def test_show_evaluation_gives_a_missed_class_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.array([0] * 60 + [1] * 5)

    show_evaluation(evaluate(labels, np.eye(2)[np.zeros(65, dtype=int)], ("daisy", "dande\nlion")))
    lines = capsys.readouterr().out.splitlines()

    assert lines[0].startswith("Balanced accuracy 50%")
    assert r"! dande\nlion: 0 of 5 found" in lines


HOSTILE = ("[bold]x[/]", "x\\", ":bee:", "a\nb\tc", "\x1b[31mred", "\u202eabc", "-rf", "=1+1", "<b>&", "蜂 🐝", "x" * 150)


@pytest.mark.parametrize("label", HOSTILE)
def test_table_and_predictions_show_labels_as_they_are(label: str, capsys: pytest.CaptureFixture[str]) -> None:
    visible = label.replace("\n", r"\n").replace("\t", r"\t").replace("\x1b", r"\x1b").replace("\u202e", r"\u202e")

    result.print(table("label", rows=[[label]]))
    show_predictions([Prediction(path=label, label=label, probability=1.0), Prediction(path=label, error=label)])
    header, cell, *rows = capsys.readouterr().out.splitlines()

    assert (header.strip(), cell.strip()) == ("label", visible)
    assert len(rows) == 2
    assert all(row.startswith(visible) for row in rows)


def test_print_json_has_neither_nan_nor_lone_surrogates(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9")

    print_json({"figures": [float("nan"), float("inf"), 1.5], "path": Path("x"), "value": Constraints(seed=3)})
    figures = json.loads(capsys.readouterr().out)
    print_json([{"path": Path(name), "figure": float("nan")}])
    paths = json.loads(capsys.readouterr().out)

    assert figures["figures"] == [None, None, 1.5]
    assert figures["value"]["seed"] == 3
    assert paths == [{"path": name, "figure": None}]
