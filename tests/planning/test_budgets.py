"""What is trained, on which backbone and how much of it, with the time that there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest

from automl_tl.contracts import Backbone, Expectation, Recipe, Strategy
from automl_tl.planning import make_plan, make_profile
from automl_tl.planning.cost import TrainingSeconds
from automl_tl.planning.decision import Arm
from automl_tl.planning.probes import Probe
from automl_tl.planning.runners import Learner
from automl_tl.planning.standing import standing_of
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.values import Constraints, Plan
from automl_tl.workflows.dataset import load_dataset
from tests.fakes import TinyBackbone, write_colors
from tests.planning.test_planner import FAINT, WHOLE, Hopeless, Larger, Solved, Trained, catalog_of, lab_of


class Second(Trained):
    """Another one."""

    name: ClassVar[str] = "another"
    expectation: ClassVar[Expectation] = Expectation(suits=True, gain=0.1, gain_sd=0.02, why="as told")


def planned_within(
    budget_s: float | None,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    *others: Backbone,
    trains: Sequence[Strategy] | None = None,
    optimize: str = "balanced",
) -> Plan:
    """For two strategies that take 10 s, 20 s more to train again, and 5 s to publish; the time stands still."""

    def seconds(recipe: Recipe, *_: object, **__: object) -> TrainingSeconds:
        phase = recipe.phases[0]
        done = phase.epochs / WHOLE.epochs * (1.0 if phase.train_blocks == WHOLE.train_blocks else 0.3)
        return TrainingSeconds(10 * done, 20 * done, 5)

    monkeypatch.setattr("automl_tl.planning.runners.seconds_of_training", seconds)
    judging = import_module("automl_tl.training.fit")  # the package has a function of that name
    monkeypatch.setattr(judging, "calibrated_loss", lambda *_: 0.0)  # whether training gains is not the question here
    monkeypatch.setattr("tests.fakes.COLORS", FAINT)
    found = load_dataset(write_colors(place / "faint", 60, classes=tuple(FAINT)), seed=0, progress=QUIET)
    catalog, constraints = (
        catalog_of([TinyBackbone(), *others], [Solved(), *(trains or (Trained(), Second()))]),
        Constraints.model_validate({"budget_s": budget_s, "optimize": optimize}),
    )
    lab = lab_of(found, place, constraints)
    lab = replace(lab, workspace=replace(lab.workspace, deadline=Deadline(budget_s, clock=lambda: 0.0)))
    return make_plan(make_profile(found.parts, found.report), catalog, constraints, lab)


@pytest.mark.parametrize(("budget_s", "seconds"), [(16, 15), (36, 35)])
def test_training_again_is_what_a_budget_spares_first(
    budget_s: float, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned_within(budget_s, tmp_path, monkeypatch)

    assert plan.strategy in ("somebodys", "another"), [candidate.reason for candidate in plan.candidates]
    assert plan.expected.seconds == seconds


def test_with_less_time_than_that_half_of_the_epochs_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned_within(14, tmp_path, monkeypatch)

    assert (plan.strategy, plan.recipe.phases[0].epochs) == ("somebodys", WHOLE.epochs // 2)
    assert any("shortened to fit the budget: half of the epochs" in reason for reason in plan.reasons)


def test_with_still_less_half_of_the_blocks_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned_within(9, tmp_path, monkeypatch)

    phase = plan.recipe.phases[0]
    assert (plan.strategy, phase.train_blocks, phase.epochs) == ("somebodys", (1, 2), WHOLE.epochs)


def test_a_backbone_is_not_looked_at_where_that_would_take_the_time_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Larger(name="tiny/other", num_macs=400_000)

    short, long = (planned_within(budget_s, tmp_path / f"{budget_s}", monkeypatch, other) for budget_s in (9, 30))

    reasons = {each.backbone: each.reason for each in short.candidates}
    assert reasons["tiny/other"] == "probing and then training needs 10 s; 9 s left"
    assert short.strategy == "somebodys"
    assert "any" not in {each.strategy for each in long.candidates if each.backbone == "tiny/other"}


def test_it_is_looked_at_where_training_promises_no_more_than_another_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Larger(name="tiny/other", num_macs=400_000)

    plan = planned_within(9, tmp_path, monkeypatch, other, trains=[Hopeless()])

    assert "any" not in {each.strategy for each in plan.candidates if each.backbone == "tiny/other"}


def test_a_race_that_there_is_no_time_for_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned_within(16, tmp_path, monkeypatch)

    reasons = {each.strategy: each.reason for each in plan.candidates}
    assert plan.strategy == "somebodys"
    assert reasons["another"] == "comparing it with somebodys needs 19 s; 16 s left"


def test_without_a_budget_only_what_promises_more_is_raced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned_within(None, tmp_path, monkeypatch)

    reasons = {each.strategy: each.reason for each in plan.candidates}
    assert plan.strategy == "somebodys"
    assert reasons["another"] == "promises no more than somebodys and takes longer; without a budget it is not compared"
    assert all(each.estimate.accuracy and each.estimate.seconds for each in plan.candidates)


def learner_of(accuracy: float, ahead: float, num_validation: int) -> Learner:
    arm = Arm("a/backbone", "", accuracy, 0.02, "made up", 10, 20, 18, 1000, "")
    probe = cast("Probe", SimpleNamespace(accuracy=accuracy))
    return Learner(arm, probe, replace(arm, accuracy=accuracy + ahead), num_validation)


def test_what_validation_images_can_not_tell_from_chance_is_worth_little() -> None:
    """Half a point behind, give or take one: 2,000 images may tell that it is ahead all the same, 50 can't."""
    few, many = (learner_of(0.95, 0.007, count).improvement(0.002, 0.01) for count in (50, 2000))

    assert few < 1e-4
    assert many > 1e-3
    assert learner_of(0.8, 0.0, 50).improvement(0.05, 0.01) == pytest.approx(0.05)  # what is expected needs no telling


class Modest(Trained):
    """Expects a fifth of a point."""

    expectation: ClassVar[Expectation] = Expectation(suits=True, gain=0.002, gain_sd=0.0001, why="as told")


@pytest.mark.parametrize(("budget_s", "said"), [(60, "of this budget"), (None, "(set --budget to try it)"), (120, "")])
def test_all_of_a_budget_has_to_bring_half_a_point(
    budget_s: float | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned_within(budget_s, tmp_path, monkeypatch, trains=[Modest()])

    refused = [each.reason for each in plan.candidates if (each.strategy, each.verdict) == ("somebodys", "not_tried")]
    assert [reason.partition(" min ")[2] for reason in refused] == [said] * bool(said)
    assert any("somebodys is tried" in change for change in plan.changes) == (budget_s == 60)


def planned_beside(
    ahead: float, budget_s: float, place: Path, monkeypatch: pytest.MonkeyPatch, *, optimize: str = "balanced"
) -> Plan:
    """Beside another backbone, better on ImageNet, whose probe is ``ahead`` in accuracy and takes 20 s to be published."""
    told = {
        "tiny/three_blocks": {"accuracy": 0.7, "latency_ms": 1.0, "seconds": 5.0},
        "tiny/other": {"accuracy": 0.7 + ahead, "latency_ms": 2.0, "seconds": 20.0},
    }

    def standing(*of: object) -> list[Arm]:
        return [replace(arm, **told[arm.backbone]) for arm in standing_of(*of)]  # type: ignore[arg-type]

    monkeypatch.setattr("automl_tl.planning.planner.standing_of", standing)
    other = Larger(name="tiny/other", num_macs=400_000, imagenet_top1=0.2)
    return planned_within(budget_s, place, monkeypatch, other, optimize=optimize)


@pytest.mark.parametrize(("ahead", "backbone"), [(0.008, "tiny/three_blocks"), (0.05, "tiny/other")])
def test_the_cheapest_backbone_that_is_within_a_point_is_trained(
    ahead: float, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned_beside(ahead, 60, tmp_path, monkeypatch)

    assert (plan.backbone, plan.strategy) == (backbone, "somebodys")
    assert any("within 1 pp of the best after fine-tuning" in reason for reason in plan.reasons) == (ahead < 0.01)


def test_what_trains_leaves_the_time_to_publish_the_best_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned_beside(0.008, 21, tmp_path, monkeypatch)

    reasons = {each.strategy: each.reason for each in plan.candidates}
    assert (plan.backbone, plan.strategy) == ("tiny/other", "solved")
    assert reasons["somebodys"] == "needs about 22 s; 21 s left"


@pytest.mark.parametrize(
    ("ahead", "budget_s", "backbone"),
    [
        pytest.param(-0.008, 60, "tiny/other", id="it is within a point"),
        pytest.param(-0.05, 60, "tiny/three_blocks", id="it is too far behind"),
        pytest.param(-0.008, 14, "tiny/three_blocks", id="there is no time to train it in full"),
    ],
)
def test_where_accuracy_alone_counts_the_best_on_imagenet_is_trained(
    ahead: float, budget_s: float, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned_beside(ahead, budget_s, tmp_path, monkeypatch, optimize="accuracy")

    assert (plan.backbone, plan.strategy) == (backbone, "somebodys")
    assert any("the backbone with the best ImageNet accuracy" in reason for reason in plan.reasons) == (
        backbone == "tiny/other"
    )
