"""The ladder on real small images: it probes, weighs, races, obeys, and knows no plugin by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NoReturn

import pytest
import torch
from torch import nn

from automl_tl.contracts import Backbone, BackboneCard, Expectation, Head, Phase, Recipe, Situation, Strategy
from automl_tl.errors import PlanFileError, UnknownBackboneError, UnsatisfiableConstraintsError
from automl_tl.planning import Lab, make_plan, make_profile
from automl_tl.planning.constraints import adapted
from automl_tl.planning.limits import refusal, shortlist
from automl_tl.plugin_host import Catalog, LoadedBackbone, LoadedStrategy, PluginEntry, discover
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.training import Workspace, fit
from automl_tl.values import Constraints, Plan
from automl_tl.workflows.dataset import Dataset, load_dataset
from tests.fakes import TinyBackbone, write_colors

FAINT = {"blue": (120, 122, 136), "green": (120, 134, 122), "red": (134, 122, 120)}
WHOLE = Phase(name="all", epochs=6, train_blocks=(0, 1, 2), head_lr=1e-2, encoder_lr=1e-2, augmentation="none")


class Renamed(TinyBackbone):
    """The tiny backbone under another name, with other facts."""

    def __init__(self, **facts: object) -> None:
        self._facts = facts

    @property
    def card(self) -> BackboneCard:
        """Facts."""
        return super().card.model_copy(update=self._facts)


class Larger(Renamed):
    """The same answers from more weights."""

    def build(self, *, pretrained: bool) -> nn.Module:
        """The tiny network with a buffer that nobody reads."""
        network = super().build(pretrained=pretrained)
        network.get_submodule("2").register_buffer("ballast", torch.zeros(1000))
        return network


class Broken(Renamed):
    """Raises when it is built."""

    def build(self, *, pretrained: bool) -> NoReturn:
        """Never."""
        raise RuntimeError("no such thing")


class OneWay(torch.autograd.Function):
    """No gradient."""

    @staticmethod
    def forward(context: object, features: torch.Tensor) -> torch.Tensor:
        """The same."""
        return features.clone()

    @staticmethod
    def backward(context: object, *gradients: object) -> NoReturn:
        """Never."""
        raise RuntimeError("no way back")


class OneWayLayer(nn.Module):
    """Stops what learns."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The same."""
        return OneWay.apply(features)  # type: ignore[no-any-return]


class ForwardOnly(TinyBackbone):
    """Gives features, but can't be trained."""

    def build(self, *, pretrained: bool) -> nn.Module:
        """The tiny network with a layer at its end."""
        network = super().build(pretrained=pretrained)
        network.get_submodule("2").append(OneWayLayer())  # type: ignore[operator]
        return network


class Solved(Strategy):
    """A ridge head."""

    name: ClassVar[str] = "solved"
    summary: ClassVar[str] = "solved"

    def recipe(self, situation: Situation) -> Recipe:
        """No phase."""
        return Recipe(head=Head(solver="logistic"))

    def expect(self, situation: Situation) -> Expectation:
        """Nothing."""
        return Expectation(suits=True, gain=0.0, gain_sd=0.0, why="quick")


class Trained(Strategy):
    """Trains everything and expects much."""

    name: ClassVar[str] = "somebodys"
    summary: ClassVar[str] = "trains"
    expectation: ClassVar[Expectation] = Expectation(suits=True, gain=0.2, gain_sd=0.02, why="as told")

    def recipe(self, situation: Situation) -> Recipe:
        """One phase."""
        return Recipe(phases=(WHOLE,), batch_size=8)

    def expect(self, situation: Situation) -> Expectation:
        """As told."""
        return self.expectation


class Hopeless(Trained):
    """Expects to do harm."""

    expectation: ClassVar[Expectation] = Expectation(suits=True, gain=-0.3, gain_sd=0.01, why="a bad idea")


class Unsuited(Trained):
    """Says that it doesn't suit."""

    expectation: ClassVar[Expectation] = Expectation(suits=False, why="not for this")


def catalog_of(backbones: Sequence[Backbone], strategies: Sequence[Strategy]) -> Catalog:
    """A catalogue of strangers."""

    def offer(kind: str, name: str) -> PluginEntry:
        return PluginEntry.model_validate(
            {"kind": kind, "name": name, "distribution": "strangers", "version": "1", "entry_point": "strangers:it"}
        )

    made = Catalog(())
    made.backbones = {each.card.name: LoadedBackbone(offer("backbones", "tiny"), each) for each in backbones}
    made.strategies = {each.name: LoadedStrategy(offer("strategy", each.name), each) for each in strategies}
    return made


@pytest.fixture
def found(tmp_path: Path) -> Dataset:
    return load_dataset(write_colors(tmp_path / "images", 40, classes=("blue", "green", "red")), seed=0, progress=QUIET)


def lab_of(found: Dataset, place: Path, constraints: Constraints = Constraints()) -> Lab:
    (place / "scratch").mkdir(exist_ok=True)
    workspace = Workspace(
        folder=place / "scratch", cache_dir=place / "cache", deadline=Deadline(constraints.budget_s), progress=QUIET
    )
    return Lab(found.images, found.index.classes, workspace, constraints)


def planned(
    found: Dataset, place: Path, catalog: Catalog, constraints: Constraints = Constraints(), *, races: bool = False
) -> Plan:
    return make_plan(
        make_profile(found.parts, found.report), catalog, constraints, lab_of(found, place, constraints), races=races
    )


def test_a_plan_holds_its_evidence(found: Dataset, tmp_path: Path) -> None:
    plan = planned(found, tmp_path, catalog_of([TinyBackbone()], [Solved(), Unsuited()]))

    assert (plan.backbone, plan.strategy) == ("tiny/three_blocks", "solved")
    assert plan.expected.accuracy is not None
    assert plan.expected.accuracy_interval is not None
    assert plan.expected.accuracy_interval[0] <= plan.expected.accuracy <= plan.expected.accuracy_interval[1]
    assert plan.expected.latency_ms
    assert plan.expected.seconds
    assert "out-of-fold" in plan.reasons[0]
    assert {candidate.verdict for candidate in plan.candidates} == {"chosen", "not_tried"}
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_the_same_question_gets_the_same_answer(found: Dataset, tmp_path: Path) -> None:
    catalog = catalog_of([TinyBackbone()], [Solved(), Trained()])
    first, second = (planned(found, tmp_path, catalog).model_dump(exclude={"seconds"}) for _ in range(2))

    assert first == second


def test_a_strangers_strategy_that_is_best_gets_chosen_and_the_fit_goes_on_from_its_race(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder has random weights and faint colors: what trains it all must win, whoever wrote it."""
    monkeypatch.setattr("tests.fakes.COLORS", FAINT)
    found = load_dataset(write_colors(tmp_path / "faint", 60, classes=tuple(FAINT)), seed=0, progress=QUIET)
    catalog = catalog_of([TinyBackbone()], [Solved(), Trained()])
    constraints = Constraints(budget_s=600)
    lab = lab_of(found, tmp_path, constraints)

    plan = make_plan(make_profile(found.parts, found.report), catalog, constraints, lab, races=True)
    fitted = fit(plan, catalog.backbone(plan.backbone), found.index.classes, found.images, lab.workspace)

    assert plan.strategy == "somebodys", [candidate.reason for candidate in plan.candidates]
    assert "against the linear probe" in plan.expected.accuracy_source
    assert plan.trained_s > 0
    assert len(fitted.result.curves) == WHOLE.epochs
    assert fitted.result.seconds["training"] < 1.0  # taken over from the race's checkpoint


def test_a_strategy_that_expects_too_little_is_not_tried(found: Dataset, tmp_path: Path) -> None:
    plan = planned(found, tmp_path, catalog_of([TinyBackbone()], [Solved(), Hopeless()]))

    assert plan.strategy == "solved"
    assert any(each.strategy == "somebodys" and each.verdict == "not_tried" for each in plan.candidates)


def test_what_trains_because_there_is_nothing_else_is_not_listed_as_turned_down(found: Dataset, tmp_path: Path) -> None:
    plan = planned(found, tmp_path, catalog_of([TinyBackbone()], [Hopeless()]))

    assert [(each.strategy, each.verdict) for each in plan.candidates] == [("somebodys", "chosen")]


def test_ctrl_c_while_planning_leaves_what_is_known_by_then(
    found: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("automl_tl.planning.planner.side_by_side", interrupt)
    catalog = catalog_of([TinyBackbone(), Larger(name="tiny/other")], [Solved(), Trained()])

    plan = planned(found, tmp_path, catalog, races=True)

    assert plan.strategy == "solved"


def test_what_there_is_no_time_for_is_neither_probed_nor_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> NoReturn:
        pytest.fail("steps were timed")

    monkeypatch.setattr(Lab, "training_speed", never)
    monkeypatch.setattr("tests.fakes.COLORS", FAINT)
    found = load_dataset(write_colors(tmp_path / "faint", 60, classes=tuple(FAINT)), seed=0, progress=QUIET)
    catalog = catalog_of([TinyBackbone(), Renamed(name="tiny/other", num_macs=400_000)], [Solved(), Trained()])
    constraints = Constraints(budget_s=7)
    lab = lab_of(found, tmp_path, constraints)
    lab = replace(lab, workspace=replace(lab.workspace, deadline=Deadline(7, clock=lambda: 0.0)))

    plan = make_plan(make_profile(found.parts, found.report), catalog, constraints, lab)

    reasons = {(each.backbone, each.strategy): each.reason for each in plan.candidates}
    assert (plan.backbone, plan.strategy) == ("tiny/three_blocks", "solved")
    assert reasons["tiny/other", "any"].endswith("7 s left")
    assert reasons["tiny/three_blocks", "somebodys"].startswith("needs more than")
    assert plan.expected.seconds is not None
    assert plan.expected.seconds <= 7


def test_what_was_asked_for_is_not_judged(found: Dataset, tmp_path: Path) -> None:
    catalog = catalog_of([TinyBackbone()], [Solved(), Unsuited()])

    assert planned(found, tmp_path, catalog, Constraints(strategies=("somebodys",))).strategy == "somebodys"


def test_a_backbone_that_breaks_is_left_out_with_its_reason(found: Dataset, tmp_path: Path) -> None:
    broken = Broken(name="tiny/broken", num_macs=1)
    catalog = catalog_of([broken, TinyBackbone()], [Solved()])

    plan = planned(found, tmp_path, catalog)

    assert plan.backbone == "tiny/three_blocks"
    assert any("no such thing" in candidate.reason for candidate in plan.candidates if candidate.backbone == "tiny/broken")


def test_equal_backbones_are_tied_and_the_smaller_wins(found: Dataset, tmp_path: Path) -> None:
    larger = Larger(name="tiny/larger")
    plan = planned(found, tmp_path, catalog_of([larger, TinyBackbone()], [Solved()]), Constraints(optimize="size"))

    assert plan.backbone == "tiny/three_blocks"
    assert any(each.backbone == "tiny/larger" and each.verdict == "tied" for each in plan.candidates)


def test_what_is_not_on_the_shortlist_is_listed_with_its_reason(found: Dataset, tmp_path: Path) -> None:
    others = [Renamed(name=f"tiny/number_{number}", num_macs=10**9, imagenet_top1=number / 10) for number in range(1, 5)]
    plan = planned(found, tmp_path, catalog_of([TinyBackbone(), *others], [Solved()]))

    reasons = {candidate.backbone: candidate.reason for candidate in plan.candidates}
    assert {name for name in reasons if "+" not in name} == {"tiny/three_blocks", *(each.card.name for each in others)}
    assert "not considered" in reasons["tiny/number_1"]


def test_what_keeps_the_latency_is_looked_at_though_others_are_better(
    found: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times the cost of the cheapest is too slow; more than that is not even timed."""
    timed: list[str] = []

    def latency_ms(_: Lab, backbone: LoadedBackbone) -> float:
        timed.append(backbone.card.name)
        return (backbone.card.num_macs or 0) / 1000

    monkeypatch.setattr(Lab, "latency_ms", latency_ms)
    backbones = [
        Larger(name=f"tiny/{size}", num_macs=1000 * size, imagenet_top1=0.5 + size / 200) for size in (1, 2, 3, 10, 40, 80)
    ]

    plan = planned(found, tmp_path, catalog_of(backbones, [Solved()]), Constraints(max_latency_ms=5))

    reasons = {each.backbone: each.reason for each in plan.candidates if each.strategy == "any"}
    assert timed == ["tiny/1", "tiny/10", "tiny/3", "tiny/2"]
    assert {name for name, reason in reasons.items() if "the limit is 5" in reason} == {"tiny/10", "tiny/40", "tiny/80"}
    assert {each.backbone for each in plan.candidates if each.strategy == "solved"} >= {"tiny/1", "tiny/2", "tiny/3"}


def test_shuffled_labels_are_no_signal(tmp_path: Path) -> None:
    write_colors(tmp_path / "images", 30, classes=("green",))
    for number, picture in enumerate(sorted((tmp_path / "images" / "green").iterdir())):
        if number % 2:
            (tmp_path / "images" / "red").mkdir(exist_ok=True)
            picture.rename(tmp_path / "images" / "red" / picture.name)
    found = load_dataset(tmp_path / "images", seed=0, progress=QUIET)

    assert any("no signal" in reason for reason in planned(found, tmp_path, catalog_of([TinyBackbone()], [Solved()])).reasons)


@pytest.mark.parametrize(
    ("constraints", "said"),
    [
        (Constraints(max_size_mib=0.001), "MiB"),
        (Constraints(max_latency_ms=1e-6), "ms per image"),
        (Constraints(license="permissive"), "license"),
        (Constraints(options={"epochs": 3}), "--strategy"),
        (Constraints(weights="mine.safetensors"), "--backbone"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_an_impossible_wish_names_what_is_nearest(found: Dataset, tmp_path: Path, constraints: Constraints, said: str) -> None:
    secretive = Renamed(license="CC-BY-NC-4.0")
    with pytest.raises(UnsatisfiableConstraintsError, match=said):
        planned(found, tmp_path, catalog_of([secretive], [Solved()]), constraints)


def test_an_unknown_backbone_is_not_a_wish(found: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UnknownBackboneError, match="lite/efficientnet_lite0"):
        planned(found, tmp_path, discover(only_host=True), Constraints(backbones=("lite/efficientnet_lite00",)))


@pytest.mark.parametrize("strategy", sorted(discover(only_host=True).strategies))
def test_each_of_our_strategies_can_be_asked_for(found: Dataset, tmp_path: Path, strategy: str) -> None:
    catalog = catalog_of([TinyBackbone()], [discover(only_host=True).strategies[strategy].strategy])
    plan = planned(found, tmp_path, catalog, Constraints(strategies=(strategy,)))

    assert plan.strategy == strategy
    assert plan.recipe.phases or plan.recipe.head.solver


def test_random_weights_and_another_head_reach_the_recipe() -> None:
    solved = Recipe(head=Head(solver="logistic"))
    trained = Recipe(phases=(Phase(name="all", epochs=2, train_blocks=(0,)),))

    assert adapted(solved, Constraints()) == solved
    assert adapted(trained, Constraints(weights="none")).pretrained is False
    assert adapted(solved, Constraints(hidden_dims=(8,))).head.solver is None
    assert len(adapted(solved, Constraints(hidden_dims=(8,))).phases) == 1
    assert adapted(trained, Constraints(hidden_dims=(8,))).phases == trained.phases


def test_another_head_alone_trains_the_head_alone(found: Dataset, tmp_path: Path) -> None:
    plan = planned(found, tmp_path, catalog_of([TinyBackbone()], [Trained(), Solved()]), Constraints(hidden_dims=(8,)))

    assert plan.strategy == "solved"
    assert all(not phase.train_blocks for phase in plan.recipe.phases)


def test_random_weights_are_not_probed(found: Dataset, tmp_path: Path) -> None:
    plan = planned(found, tmp_path, catalog_of([TinyBackbone()], [Solved(), Trained()]), Constraints(weights="none"))

    assert plan.recipe.pretrained is False
    assert plan.expected.accuracy is None


def test_random_weights_keep_to_a_latency_as_well(found: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UnsatisfiableConstraintsError, match="ms per image"):
        planned(found, tmp_path, catalog_of([TinyBackbone()], [Trained()]), Constraints(weights="none", max_latency_ms=1e-6))


def test_a_backbone_that_can_not_be_trained_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fakes.COLORS", FAINT)
    found = load_dataset(write_colors(tmp_path / "faint", 60, classes=tuple(FAINT)), seed=0, progress=QUIET)

    plan = planned(found, tmp_path, catalog_of([ForwardOnly()], [Solved(), Trained()]), Constraints(budget_s=600), races=True)

    assert plan.strategy == "solved"
    reason = next(each.reason for each in plan.candidates if each.strategy == "somebodys")
    assert "no way back" in reason


def test_backbones_that_are_away_are_counted_and_told_of_once(
    found: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(QUIET, "info", said.append)
    away = [Renamed(name=f"tiny/away_{number}", weights="download") for number in range(3)]

    plan = planned(found, tmp_path, catalog_of([TinyBackbone(), *away], [Solved()]))

    assert said == ["Skipping 3 backbones without local pretrained weights."]
    assert [each.backbone for each in plan.candidates if "no local pretrained weights" in each.reason] == ["3 more"]


def test_the_same_network_under_two_names_is_looked_at_once() -> None:
    first = TinyBackbone().card
    twin = first.model_copy(update={"name": "other/three_blocks", "same_network_as": (first.name,)})

    assert len(shortlist([first, twin], Constraints())) == 1


@pytest.mark.parametrize(
    ("license", "is_out"),
    [("Apache-2.0", False), ("Apache-2.0 AND MIT", False), ("MIT AND CC-BY-NC-4.0", True), (None, True)],
)
def test_a_permissive_license_is_permissive_in_every_part(license: str | None, is_out: bool) -> None:
    card = Renamed(license=license).card

    assert (refusal(card, Constraints(license="permissive")) is not None) == is_out


def test_plan_files_say_what_is_wrong_with_them() -> None:
    assert "tl auto plan" in str(PlanFileError("plan.json", "broken"))
