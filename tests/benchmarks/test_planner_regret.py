"""Summary of the planner's regret, from files of an unfinished run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.planner_regret import Planned, print_budgets, print_change, read_plan

PLAN = Planned(
    images="flowers",
    seed=0,
    budget=30,
    backbone="lite/efficientnet_lite0:levels",
    strategy="linear_probe",
    accuracy=0.9,
    num_test=100,
    expected=0.88,
    interval=(0.80, 0.96),
    predicted_s=10.0,
    measured_s=12.0,
    wall_s=31.0,
    cpu_s=40.0,
    latency_ms=9.5,
    is_trained=False,
    notes=(),
)


def test_read_plan_skips_missing_and_truncated_files(tmp_path: Path) -> None:
    whole, truncated = tmp_path / "whole.json", tmp_path / "truncated.json"
    whole.write_text(json.dumps(asdict(PLAN)))
    truncated.write_text(whole.read_text()[:40])

    assert [read_plan(file) is None for file in (whole, truncated, tmp_path / "missing.json")] == [False, True, True]


def test_covers_scales_the_interval_around_the_expectation() -> None:
    plan = replace(PLAN, accuracy=0.95)

    assert plan.covers()
    assert not plan.covers(0.84)


def test_print_budgets_counts_kept_budgets(capsys: pytest.CaptureFixture[str]) -> None:
    print_budgets([PLAN, replace(PLAN, seed=1, wall_s=40.0)], [30, 120])

    printed = capsys.readouterr().out
    assert "1 of 2" in printed
    assert "over 30 s: flowers 1 40.0 s" in printed


@pytest.mark.parametrize(("accuracy", "is_loss"), [(0.86, True), (0.88, False), (0.95, False)])
def test_print_change_names_losses_beyond_a_standard_error(
    accuracy: float, is_loss: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    unpaired = replace(PLAN, images="signs", accuracy=0.1)
    print_change([PLAN, unpaired, replace(PLAN, budget=120, accuracy=accuracy)], 30, 120)

    printed = capsys.readouterr().out
    assert "on 1 sets" in printed
    assert ("flowers" in printed) == is_loss
