"""Rendering of values on the command line."""

from __future__ import annotations

import numpy as np
import pytest

from automl_tl.cli.render import show_evaluation, show_plan
from automl_tl.evaluation import evaluate
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
