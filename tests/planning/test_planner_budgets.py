"""What ``make_plan`` trains, on which backbone and how much of it, within a budget. Costs are fixed and time stands still."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest

from automl_tl.contracts import Backbone, Strategy
from automl_tl.planning import EvidenceCollector, make_plan
from automl_tl.planning.candidates import Candidate, list_candidates, probe_candidates
from automl_tl.planning.planner import plan_from_candidates, probe_backbones
from automl_tl.runtime.budget import Deadline
from automl_tl.testing import ToyBackbone
from automl_tl.training.speed import Speed
from automl_tl.values import Constraints, Plan
from automl_tl.workflows.dataset import Dataset
from tests.planning.fake_plugins import (
    ALL_BLOCKS,
    ClosedForm,
    FineTuned,
    FixedCosts,
    Larger,
    Modest,
    SecondBest,
    catalog_of,
    evidence_of,
)

OTHER = Larger(name="toy/other", num_macs=400_000)
CollectEvidence = Callable[[Constraints], EvidenceCollector]
PlanWithin = Callable[..., Plan]


@pytest.fixture
def collect_evidence(faint: Dataset, tmp_path: Path, cache_dir: Path) -> CollectEvidence:
    """Return an evidence collector with fixed costs and a clock that stands still."""

    def collect_evidence(constraints: Constraints) -> EvidenceCollector:
        evidence = evidence_of(faint, tmp_path, constraints, cache_dir=cache_dir, kind=FixedCosts)
        evidence.workspace = replace(evidence.workspace, deadline=Deadline(constraints.budget_s, clock=lambda: 0.0))
        return evidence

    return collect_evidence


@pytest.fixture
def plan_within(collect_evidence: CollectEvidence) -> PlanWithin:
    """Return ``make_plan`` within a budget, by default for two strategies that train."""

    def plan_within(budget_s: float | None, *others: Backbone, trained: Sequence[Strategy] = ()) -> Plan:
        strategies = trained or (FineTuned(), SecondBest())
        catalog = catalog_of([ToyBackbone(), *others], [ClosedForm(), *strategies])
        return make_plan(catalog, collect_evidence(Constraints(budget_s=budget_s)))

    return plan_within


def reasons_of(plan: Plan) -> dict[str, str]:
    """Return the reasons of the verdicts by strategy."""
    return {verdict.strategy: verdict.reason for verdict in plan.candidates}


@pytest.mark.parametrize(("budget_s", "seconds"), [(16, 15), (36, 35)])
def test_make_plan_drops_the_refit_first(budget_s: float, seconds: float, plan_within: PlanWithin) -> None:
    plan = plan_within(budget_s)

    assert plan.strategy in ("fine_tuned", "second_best"), reasons_of(plan)
    assert plan.expected.seconds == seconds


@pytest.mark.parametrize(
    ("budget_s", "share", "words"),
    [(14, 2 / 3, "two thirds of the epochs"), (11, 1 / 2, "half of the epochs"), (10, 1 / 3, "a third of the epochs")],
)
def test_make_plan_shortens_the_epochs_next(budget_s: float, share: float, words: str, plan_within: PlanWithin) -> None:
    plan = plan_within(budget_s)

    assert (plan.strategy, plan.recipe.phases[0].epochs) == ("fine_tuned", ceil(share * ALL_BLOCKS.epochs))
    assert any(f"shortened to fit the budget: {words}" in reason for reason in plan.reasons)


def test_make_plan_does_not_train_with_still_less_time(plan_within: PlanWithin) -> None:
    plan = plan_within(8.3)

    assert not plan.recipe.phases
    assert reasons_of(plan)["fine_tuned"] == "needs about 9 s; 8 s left"


@pytest.mark.parametrize("budget_s", [9, 30])
def test_make_plan_probes_what_a_smaller_budget_would_have_probed(budget_s: float, plan_within: PlanWithin) -> None:
    plan = plan_within(budget_s, OTHER)

    assert "any" not in {verdict.strategy for verdict in plan.candidates if verdict.backbone == "toy/other"}


def test_make_plan_compares_only_what_there_is_time_for(plan_within: PlanWithin) -> None:
    plan = plan_within(16)

    assert plan.strategy == "fine_tuned"
    assert reasons_of(plan)["second_best"] == "comparing it with fine_tuned needs 19 s; 16 s left"


def test_make_plan_without_a_budget_compares_only_what_promises_more(plan_within: PlanWithin) -> None:
    plan = plan_within(None)

    reason = "promises no more than fine_tuned and takes longer; without a budget it is not compared"
    assert plan.strategy == "fine_tuned"
    assert reasons_of(plan)["second_best"] == reason
    assert all(verdict.estimate.accuracy and verdict.estimate.seconds for verdict in plan.candidates)


@pytest.mark.parametrize(
    ("budget_s", "hint"), [(60, "of this budget"), (None, "(raise --budget to try it)"), (120, "")], ids=str
)
def test_make_plan_expects_half_a_point_from_a_whole_budget(budget_s: float | None, hint: str, plan_within: PlanWithin) -> None:
    plan = plan_within(budget_s, trained=[Modest()])

    reasons = [
        verdict.reason for verdict in plan.candidates if (verdict.strategy, verdict.verdict) == ("fine_tuned", "not_tried")
    ]
    assert [reason.partition(" min ")[2] for reason in reasons] == [hint] * bool(hint)
    assert any("fine_tuned is tried" in change for change in plan.changes) == (budget_s == 60)


@pytest.fixture
def plan_beside(collect_evidence: CollectEvidence) -> PlanWithin:
    """Plan beside another backbone, better on ImageNet, whose probe is ``ahead`` in accuracy and takes 20 s to publish."""

    def plan_beside(ahead: float, budget_s: float, optimize: str = "balanced") -> Plan:
        measured = {
            "toy/three_blocks": {"accuracy": 0.7, "latency_ms": 1.0, "seconds": 5.0},
            "toy/other": {"accuracy": 0.7 + ahead, "latency_ms": 2.0, "seconds": 20.0},
        }
        evidence = collect_evidence(Constraints.model_validate({"budget_s": budget_s, "optimize": optimize}))
        other = Larger(name="toy/other", num_macs=400_000, imagenet_top1=0.2)
        catalog = catalog_of([ToyBackbone(), other], [ClosedForm(), FineTuned(), SecondBest()])
        cards = [backbone.card for backbone in catalog.backbones.values()]
        probes, _ = probe_backbones(cards, catalog, evidence, strategies=[])
        candidates = [
            replace(candidate, **measured[candidate.backbone])  # type: ignore[arg-type]
            for candidate in probe_candidates(evidence, probes, probes[0])
        ]
        return plan_from_candidates(
            catalog, evidence, list(catalog.strategies.values()), candidates, rejected=[], run_trials=True
        )

    return plan_beside


@pytest.mark.parametrize(("ahead", "backbone"), [(0.008, "toy/three_blocks"), (0.05, "toy/other")])
def test_plan_trains_the_cheapest_backbone_within_a_point(ahead: float, backbone: str, plan_beside: PlanWithin) -> None:
    plan = plan_beside(ahead, 60)

    assert (plan.backbone, plan.strategy) == (backbone, "fine_tuned")
    assert any("within 1 pp of the best after fine-tuning" in reason for reason in plan.reasons) == (ahead < 0.01)


def test_plan_keeps_the_time_to_publish_the_best_probe(plan_beside: PlanWithin) -> None:
    plan = plan_beside(0.008, 21)

    assert (plan.backbone, plan.strategy) == ("toy/other", "closed_form")
    assert reasons_of(plan)["fine_tuned"] == "needs about 24 s; 21 s left"


def test_probe_candidates_without_time_learn_from_the_probed_images_on_the_cheapest_backbone(
    collect_evidence: CollectEvidence,
) -> None:
    catalog = catalog_of([ToyBackbone()], [ClosedForm()])

    def seconds_within(budget_s: float) -> list[float]:
        evidence = collect_evidence(Constraints(budget_s=budget_s))
        probe = evidence.probe(catalog.backbone("toy/three_blocks"))
        sample = replace(
            probe,
            labels=probe.labels[:100],
            weights=probe.weights[:100],
            features=probe.features[:100],
            log_probabilities=probe.log_probabilities[:100],
        )
        cheap, expensive = (replace(sample, speed=Speed(load_s=0, forward_s=s, latency_ms=s)) for s in (1, 2))
        return [candidate.seconds for candidate in probe_candidates(evidence, [cheap, expensive], cheap)]

    (cheap, expensive), (cheap_in_short, expensive_in_short) = seconds_within(1000), seconds_within(20)
    num_others = len(collect_evidence(Constraints()).learning) - 100
    assert cheap - cheap_in_short == pytest.approx(num_others, abs=5)
    assert expensive_in_short == expensive


def test_list_candidates_keeps_the_time_to_publish_what_is_chosen_without_training(collect_evidence: CollectEvidence) -> None:
    evidence = collect_evidence(Constraints(budget_s=60))
    catalog = catalog_of([ToyBackbone()], [ClosedForm(), FineTuned()])
    strategies = list(catalog.strategies.values())
    backbones = probe_candidates(evidence, probes := [evidence.probe(catalog.backbone("toy/three_blocks"))], probes[0])

    def slow_to_publish(candidates: Sequence[Candidate]) -> Candidate:
        """Choose a candidate that takes 59 s if it is one with a closed-form head."""
        return replace(candidates[0], seconds=59.0) if candidates[0].strategy else candidates[0]

    _, trained, rejected, _ = list_candidates(catalog, evidence, strategies, backbones, backbones[0], slow_to_publish)

    assert not trained
    assert [verdict.reason for verdict in rejected] == ["needs about 63 s; 60 s left"]


@pytest.mark.parametrize("levels_gain", [0.0, 0.2])
def test_list_candidates_expects_of_the_best_strategy_at_least_what_levels_gain(
    levels_gain: float, collect_evidence: CollectEvidence
) -> None:
    """Modest expects 0.2 pp, against a probe that is 20 pp ahead."""
    evidence = collect_evidence(Constraints(budget_s=60))
    catalog = catalog_of([ToyBackbone()], [ClosedForm(), Modest()])
    strategies, probe = list(catalog.strategies.values()), evidence.probe(catalog.backbone("toy/three_blocks"))
    backbones = probe_candidates(evidence, [probe], probe)
    base = replace(backbones[0], accuracy=0.7, behind=0.2, levels_gain=levels_gain)

    _, trained, _, _ = list_candidates(catalog, evidence, strategies, backbones, base, lambda candidates: candidates[0])

    assert [candidate.gain for candidate in trained] == ([levels_gain] if levels_gain else [])


@pytest.mark.parametrize(
    ("ahead", "budget_s", "backbone"),
    [
        pytest.param(-0.008, 60, "toy/other", id="within a point"),
        pytest.param(-0.05, 60, "toy/three_blocks", id="too far behind"),
        pytest.param(-0.008, 14, "toy/three_blocks", id="no time to train it in full"),
    ],
)
def test_plan_for_accuracy_trains_the_best_on_imagenet(
    ahead: float, budget_s: float, backbone: str, plan_beside: PlanWithin
) -> None:
    plan = plan_beside(ahead, budget_s, "accuracy")

    assert (plan.backbone, plan.strategy) == (backbone, "fine_tuned")
    assert any("the backbone with the best ImageNet accuracy" in reason for reason in plan.reasons) == (backbone == "toy/other")
