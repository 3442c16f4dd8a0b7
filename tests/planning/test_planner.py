"""``make_plan`` on real small images: which candidate it chooses, and what it says about the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from automl_tl.errors import PlanFileError, UnknownBackboneError, UnsatisfiableConstraintsError
from automl_tl.planning import EvidenceCollector, make_plan, read_plan
from automl_tl.planning.evidence import Probe
from automl_tl.plugin_host import LoadedBackbone, discover
from automl_tl.runtime.budget import Deadline, OutOfTime
from automl_tl.runtime.progress import QUIET
from automl_tl.testing import ToyBackbone
from automl_tl.training import TrainingTask, fit
from automl_tl.training.closed_form import DEFAULT_SOLVER, Solver
from automl_tl.training.speed import TrainingSpeed
from automl_tl.values import Constraints, Metric, Plan
from automl_tl.workflows.dataset import Dataset, load_dataset
from tests.fakes import write_colors
from tests.planning.conftest import MakePlan
from tests.planning.fake_plugins import (
    ALL_BLOCKS,
    Broken,
    ClosedForm,
    FineTuned,
    FixedProbes,
    ForwardOnly,
    FromScratch,
    Hopeless,
    Interrupting,
    Larger,
    Renamed,
    Unsuitable,
    catalog_of,
    evidence_of,
)


class Recorder:
    """Progress that keeps its messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def info(self, text: str) -> None:
        """Keep a message."""
        self.messages.append(text)

    def warn(self, text: str) -> None:
        """Keep a warning."""
        self.messages.append(text)

    track = QUIET.track


def reasons_of(plan: Plan) -> dict[str, str]:
    """Return the reasons of the verdicts by backbone."""
    return {verdict.backbone: verdict.reason for verdict in plan.candidates}


def test_make_plan_returns_its_evidence(plan: MakePlan) -> None:
    result = plan(catalog_of([ToyBackbone()], [ClosedForm(), Unsuitable()]), kind=EvidenceCollector)

    assert (result.backbone, result.strategy) == ("toy/three_blocks", "closed_form")
    assert result.expected.accuracy is not None
    assert result.expected.accuracy_interval is not None
    assert result.expected.accuracy_interval[0] <= result.expected.accuracy <= result.expected.accuracy_interval[1]
    assert result.expected.latency_ms
    assert result.expected.seconds
    assert "out-of-fold" in result.reasons[0]
    assert {candidate.verdict for candidate in result.candidates} == {"chosen", "tied", "not_tried"}
    assert Plan.model_validate_json(result.model_dump_json()) == result


def test_make_plan_repeats_itself(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))  # on a busy machine it would measure the speed again
    catalog = catalog_of([ToyBackbone()], [ClosedForm(), FineTuned()])
    first, second = (plan(catalog, kind=EvidenceCollector).model_dump(exclude={"seconds"}) for _ in range(2))

    assert first == second


def test_make_plan_chooses_the_strategy_that_wins_its_trial_and_fit_resumes_it(faint: Dataset, tmp_path: Path) -> None:
    """The encoder has random weights and the colors are faint: training all blocks must win."""
    catalog = catalog_of([ToyBackbone()], [ClosedForm(), FineTuned()])
    evidence = evidence_of(faint, tmp_path, Constraints(budget_s=600, backbones=("toy/three_blocks",)))

    plan = make_plan(catalog, evidence)
    backbone = catalog.backbone(plan.backbone)
    fitted = fit(TrainingTask(plan, backbone, evidence.classes, faint.images, evidence.workspace))

    assert plan.strategy == "fine_tuned", [candidate.reason for candidate in plan.candidates]
    assert "against the linear probe" in plan.expected.accuracy_source
    assert plan.trained_s > 0
    assert len(fitted.result.curves) == ALL_BLOCKS.epochs
    assert fitted.result.seconds["training"] < 1.0  # resumed from the trial's checkpoint
    memory = {candidate.estimate.memory_mib for candidate in plan.candidates if candidate.estimate}
    assert memory == {plan.expected.memory_mib}  # of the process, which has trained, whatever it publishes


def test_make_plan_does_not_try_a_strategy_that_expects_too_little(plan: MakePlan) -> None:
    result = plan(catalog_of([ToyBackbone()], [ClosedForm(), Hopeless()]))

    assert result.strategy == "closed_form"
    assert any(verdict.strategy == "fine_tuned" and verdict.verdict == "not_tried" for verdict in result.candidates)


def test_make_plan_lists_the_only_strategy_once(plan: MakePlan) -> None:
    result = plan(catalog_of([ToyBackbone()], [Hopeless()]))

    assert [(verdict.strategy, verdict.verdict) for verdict in result.candidates] == [("fine_tuned", "chosen")]


def test_make_plan_after_ctrl_c_chooses_among_the_probes(plan: MakePlan) -> None:
    catalog = catalog_of([ToyBackbone(), Interrupting(name="toy/other", num_macs=400_000)], [ClosedForm(), FineTuned()])

    assert plan(catalog, run_trials=True).strategy == "closed_form"


def test_make_plan_after_ctrl_c_in_an_ensemble_chooses_a_single_backbone(
    colors: Dataset, tmp_path: Path, cache_dir: Path
) -> None:
    class InterruptedEnsemble(FixedProbes):
        def probe_ensemble(self, members: object) -> NoReturn:
            raise KeyboardInterrupt

    host = discover(only_host=True).strategies["linear_probe"].strategy
    catalog = catalog_of([ToyBackbone(), Larger(name="toy/other")], [host, FineTuned()])
    evidence = evidence_of(colors, tmp_path, cache_dir=cache_dir, kind=InterruptedEnsemble)

    plan = make_plan(catalog, evidence)

    assert plan.strategy == "linear_probe"
    assert "+" not in plan.backbone
    assert evidence.workspace.deadline.is_ended


def test_make_plan_without_any_probe_passes_ctrl_c_on(plan: MakePlan) -> None:
    with pytest.raises(OutOfTime):
        plan(catalog_of([Interrupting(name="toy/other")], [ClosedForm()]))


def test_make_plan_neither_probes_nor_times_what_does_not_fit_the_budget(
    faint: Dataset, tmp_path: Path, cache_dir: Path
) -> None:
    class NeverTimed(FixedProbes):
        def training_speed(self, backbone: LoadedBackbone) -> TrainingSpeed:
            pytest.fail("steps were timed")

    catalog = catalog_of([ToyBackbone(), Renamed(name="toy/other", num_macs=400_000)], [ClosedForm(), FineTuned()])
    evidence = evidence_of(faint, tmp_path, Constraints(budget_s=7), cache_dir=cache_dir, kind=NeverTimed)
    evidence.workspace = replace(evidence.workspace, deadline=Deadline(7, clock=lambda: 0.0))

    plan = make_plan(catalog, evidence)

    reasons = {(verdict.backbone, verdict.strategy): verdict.reason for verdict in plan.candidates}
    assert (plan.backbone, plan.strategy) == ("toy/three_blocks", "closed_form")
    assert reasons["toy/other", "any"].startswith("feature extraction would take about")
    assert reasons["toy/three_blocks", "fine_tuned"].startswith("needs more than")
    assert plan.expected.seconds is not None
    assert plan.expected.seconds <= 7


def test_make_plan_tries_a_requested_strategy_that_does_not_suit(plan: MakePlan) -> None:
    catalog = catalog_of([ToyBackbone()], [ClosedForm(), Unsuitable()])

    assert plan(catalog, Constraints(strategies=("fine_tuned",))).strategy == "fine_tuned"


def test_make_plan_excludes_a_broken_backbone_with_its_reason(plan: MakePlan) -> None:
    result = plan(catalog_of([Broken(name="toy/broken", num_macs=1), ToyBackbone()], [ClosedForm()]))

    assert result.backbone == "toy/three_blocks"
    assert "no such thing" in reasons_of(result)["toy/broken"]


def test_make_plan_prefers_the_smaller_of_equal_backbones(plan: MakePlan) -> None:
    catalog = catalog_of([Larger(name="toy/larger"), ToyBackbone()], [ClosedForm()])

    result = plan(catalog, Constraints(optimize="size"))

    assert result.backbone == "toy/three_blocks"
    assert any(verdict.backbone == "toy/larger" and verdict.verdict == "tied" for verdict in result.candidates)


def test_make_plan_lists_backbones_outside_the_shortlist(plan: MakePlan) -> None:
    others = [Renamed(name=f"toy/number_{number}", num_macs=10**9, imagenet_top1=number / 10) for number in range(1, 5)]

    reasons = reasons_of(plan(catalog_of([ToyBackbone(), *others], [ClosedForm()])))

    assert {name for name in reasons if "+" not in name} == {"toy/three_blocks", *(backbone.card.name for backbone in others)}
    assert "not considered" in reasons["toy/number_1"]


def test_make_plan_shortlists_backbones_within_the_latency(colors: Dataset, tmp_path: Path, cache_dir: Path) -> None:
    """Ten times the cost of the cheapest is too slow; more than that is not even timed."""
    timed: list[str] = []

    class ProportionalLatency(FixedProbes):
        def latency_ms(self, backbone: LoadedBackbone) -> float:
            timed.append(backbone.card.name)
            return (backbone.card.num_macs or 0) / 1000

    backbones = [
        Larger(name=f"toy/{size}", num_macs=1000 * size, imagenet_top1=0.5 + size / 200) for size in (1, 2, 3, 10, 40, 80)
    ]
    constraints = Constraints(max_latency_ms=5)
    evidence = evidence_of(colors, tmp_path, constraints, cache_dir=cache_dir, kind=ProportionalLatency)

    plan = make_plan(catalog_of(backbones, [ClosedForm()]), evidence)

    reasons = {verdict.backbone: verdict.reason for verdict in plan.candidates if verdict.strategy == "any"}
    assert timed == ["toy/1", "toy/10", "toy/3", "toy/2"]
    assert {name for name, reason in reasons.items() if "the limit is 5" in reason} == {"toy/10", "toy/40", "toy/80"}
    assert {verdict.backbone for verdict in plan.candidates if verdict.strategy == "closed_form"} >= {"toy/1", "toy/2", "toy/3"}


def test_make_plan_warns_about_shuffled_labels(plan: MakePlan, tmp_path: Path) -> None:
    write_colors(tmp_path / "images", 30, classes=("green",))
    (tmp_path / "images" / "red").mkdir()
    for image in sorted((tmp_path / "images" / "green").iterdir())[1::2]:
        image.rename(tmp_path / "images" / "red" / image.name)
    dataset = load_dataset(tmp_path / "images", seed=0, progress=QUIET)

    result = plan(catalog_of([ToyBackbone()], [ClosedForm()]), dataset=dataset, kind=EvidenceCollector)

    assert any("no signal" in reason for reason in result.reasons)


@pytest.mark.parametrize(
    ("constraints", "text"),
    [
        (Constraints(max_size_mib=0.001), "MiB"),
        (Constraints(max_latency_ms=1e-6), "ms per image"),
        (Constraints(license="permissive"), "license"),
        (Constraints(options={"epochs": 3}), "--strategy"),
        (Constraints(weights="mine.safetensors"), "--backbone"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_make_plan_names_the_nearest_if_nothing_is_possible(plan: MakePlan, constraints: Constraints, text: str) -> None:
    with pytest.raises(UnsatisfiableConstraintsError, match=text):
        plan(catalog_of([Renamed(license="CC-BY-NC-4.0")], [ClosedForm()]), constraints)


def test_make_plan_suggests_the_name_of_an_unknown_backbone(plan: MakePlan) -> None:
    with pytest.raises(UnknownBackboneError, match="lite/efficientnet_lite0"):
        plan(discover(only_host=True), Constraints(backbones=("lite/efficientnet_lite00",)))


@pytest.mark.parametrize("strategy", sorted(discover(only_host=True).strategies))
def test_make_plan_obeys_a_requested_strategy(plan: MakePlan, strategy: str) -> None:
    catalog = catalog_of([ToyBackbone()], [discover(only_host=True).strategies[strategy].strategy])

    result = plan(catalog, Constraints(strategies=(strategy,)))

    assert result.strategy == strategy
    assert result.recipe.phases or result.recipe.head.solver


def test_make_plan_for_another_head_trains_the_head_alone(plan: MakePlan) -> None:
    result = plan(catalog_of([ToyBackbone()], [FineTuned(), ClosedForm()]), Constraints(hidden_dims=(8,)))

    assert result.strategy == "closed_form"
    assert all(not phase.train_blocks for phase in result.recipe.phases)


def test_make_plan_for_random_weights_estimates_no_accuracy(plan: MakePlan) -> None:
    result = plan(catalog_of([ToyBackbone()], [ClosedForm(), FineTuned()]), Constraints(weights="none"))

    assert result.recipe.pretrained is False
    assert result.expected.accuracy is None


def test_make_plan_for_random_weights_respects_the_latency(plan: MakePlan) -> None:
    with pytest.raises(UnsatisfiableConstraintsError, match="ms per image"):
        plan(catalog_of([ToyBackbone()], [FineTuned()]), Constraints(weights="none", max_latency_ms=1e-6))


def test_make_plan_for_a_head_on_random_weights_trains_the_encoder_too(plan: MakePlan) -> None:
    constraints = Constraints(backbones=("toy/three_blocks",), weights="none", hidden_dims=(8,))

    assert plan(catalog_of([ToyBackbone()], [ClosedForm(), FromScratch()]), constraints).strategy == "from_scratch"


def test_make_plan_keeps_a_backbone_that_cannot_be_trained_frozen(plan: MakePlan, faint: Dataset) -> None:
    catalog = catalog_of([ForwardOnly()], [ClosedForm(), FineTuned()])

    result = plan(catalog, Constraints(budget_s=600), dataset=faint, run_trials=True)

    assert result.strategy == "closed_form"
    assert "no way back" in next(verdict.reason for verdict in result.candidates if verdict.strategy == "fine_tuned")


def test_make_plan_counts_backbones_without_local_weights(plan: MakePlan) -> None:
    recorder = Recorder()
    away = [Renamed(name=f"toy/away_{number}", weights="download") for number in range(3)]

    result = plan(catalog_of([ToyBackbone(), *away], [ClosedForm()]), progress=recorder)

    assert recorder.messages == ["Skipping 3 backbones without local pretrained weights."]
    assert [verdict.backbone for verdict in result.candidates if "no local pretrained weights" in verdict.reason] == ["3 more"]


def test_make_plan_without_validation_images_runs_no_trial(colors: Dataset, tmp_path: Path, cache_dir: Path) -> None:
    constraints, recorder = Constraints(strategies=("closed_form", "fine_tuned")), Recorder()
    evidence = evidence_of(colors, tmp_path, constraints, cache_dir=cache_dir, progress=recorder, kind=FixedProbes)
    evidence.images = {"train": evidence.learning, "validation": evidence.learning.at([]), "test": colors.images["test"]}

    plan = make_plan(catalog_of([ToyBackbone()], [ClosedForm(), FineTuned()]), evidence)

    assert not recorder.messages
    assert plan.trained_s == 0
    assert not any("no time" in verdict.reason for verdict in plan.candidates)


def test_make_plan_budgets_a_backbone_of_unknown_cost(plan: MakePlan) -> None:
    unknown = Larger(name="toy/unknown", num_macs=None, num_parameters=10**6)

    reasons = reasons_of(plan(catalog_of([ToyBackbone(), unknown], [ClosedForm()]), Constraints(budget_s=0.001)))

    assert "s left" in reasons["toy/unknown"] or "the limit is" in reasons["toy/unknown"]


def test_read_plan_rejects_other_files(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"format": 1}')

    with pytest.raises(PlanFileError, match="tl auto plan"):
        read_plan(tmp_path / "plan.json")
    with pytest.raises(PlanFileError, match="tl auto plan"):
        read_plan(tmp_path / "missing.json")


@pytest.mark.parametrize(("num_red", "is_adjusted"), [(12, False), (4, True)])
def test_plan_gives_balanced_accuracy_first_if_classes_are_imbalanced(
    plan: MakePlan, tmp_path: Path, num_red: int, is_adjusted: bool
) -> None:
    write_colors(tmp_path / "images", 60, classes=("green",))
    write_colors(tmp_path / "images", num_red, classes=("red",))
    dataset = load_dataset(tmp_path / "images", seed=0, progress=QUIET)

    reasons = plan(catalog_of([ToyBackbone()], [ClosedForm()]), dataset=dataset).reasons

    assert "out-of-fold balanced accuracy" in reasons[0]
    (imbalance,) = [reason for reason in reasons if reason.startswith("imbalanced classes (green 48, red ")]
    assert "lowest out-of-fold recall" in imbalance
    assert ("logits adjusted" in imbalance) == is_adjusted


def test_plan_by_a_metric_expects_its_value_and_reads_it_first(plan: MakePlan, tmp_path: Path) -> None:
    write_colors(tmp_path / "images", 60, classes=("green",))
    write_colors(tmp_path / "images", 12, classes=("red",))
    dataset = load_dataset(tmp_path / "images", seed=0, progress=QUIET)
    constraints = Constraints(metric="balanced_accuracy")

    made = plan(catalog_of([ToyBackbone()], [ClosedForm()]), constraints, dataset=dataset)

    assert made.expected.metric == "balanced_accuracy"
    assert made.expected.accuracy is None
    assert made.expected.value is not None
    assert made.expected.columns[0] == "balanced accuracy"
    assert "out-of-fold balanced accuracy" in made.reasons[0]
    assert "class weights: balanced, so that every class counts alike" in made.reasons


class RareOrFrequent(FixedProbes):
    """``toy/frequent`` takes every image for the frequent class, ``toy/rare`` finds all of the rare one, and 30% too many."""

    def probe(self, backbone: LoadedBackbone, *, solver: Solver = DEFAULT_SOLVER, levels: Probe | None = None) -> Probe:
        """Return predictions of the first or the second kind."""
        probe = super().probe(backbone, solver=solver, levels=levels)
        if probe.name == "toy/frequent":
            predicted, confidence = np.zeros_like(probe.labels), 0.99
        else:
            predicted, confidence = np.where(np.arange(len(probe.labels)) % 10 < 3, 1, probe.labels), 0.9
        probabilities = np.where(np.arange(2) == predicted[:, None], confidence, 1 - confidence)
        return replace(probe, log_probabilities=np.log(probabilities))


@pytest.mark.parametrize(
    ("metric", "chosen"),
    [
        ("accuracy", "toy/frequent"),
        ("balanced_accuracy", "toy/rare"),
        ("macro_f1", "toy/rare"),
        ("log_loss", "toy/rare"),
    ],
)
def test_make_plan_chooses_by_the_metric_that_is_asked_for(plan: MakePlan, tmp_path: Path, metric: Metric, chosen: str) -> None:
    write_colors(tmp_path / "images", 100, classes=("green",))
    write_colors(tmp_path / "images", 20, classes=("red",))
    dataset = load_dataset(tmp_path / "images", seed=0, progress=QUIET)
    catalog = catalog_of([Renamed(name="toy/frequent"), Larger(name="toy/rare")], [ClosedForm()])

    made = plan(catalog, Constraints(metric=metric, optimize="accuracy"), dataset=dataset, kind=RareOrFrequent)

    assert made.backbone == chosen
    assert made.expected.metric == metric
