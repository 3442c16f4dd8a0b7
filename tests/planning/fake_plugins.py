"""Third-party plugins for the planner: small real backbones, strategies with fixed expectations, and a catalog of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NoReturn

import numpy as np
import torch
from torch import nn

from automl_tl.contracts import Backbone, BackboneCard, Expectation, Head, Phase, Recipe, Situation, Strategy
from automl_tl.planning import EvidenceCollector, make_profile
from automl_tl.planning.cost import TrainingCost
from automl_tl.planning.evidence import Probe
from automl_tl.plugin_host import Catalog, LoadedBackbone, LoadedStrategy, PluginEntry
from automl_tl.plugin_host.ensemble import Ensemble
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.testing import ToyBackbone
from automl_tl.training import Trial, Workspace
from automl_tl.training.closed_form import DEFAULT_SOLVER, Solver
from automl_tl.training.speed import Speed, TrainingSpeed
from automl_tl.values import Constraints, Plan
from automl_tl.workflows.dataset import Dataset

FAINT = {"blue": (120, 122, 136), "green": (120, 134, 122), "red": (134, 122, 120)}
ALL_BLOCKS = Phase(name="all", epochs=6, train_blocks=(0, 1, 2), head_lr=1e-2, encoder_lr=1e-2, augmentation="none")


class Renamed(ToyBackbone):
    """The toy backbone with other facts on its card."""

    def __init__(self, **facts: object) -> None:
        self._facts = facts

    @property
    def card(self) -> BackboneCard:
        """The changed card."""
        return super().card.model_copy(update=self._facts)


class Larger(Renamed):
    """The same features from a larger file."""

    def build(self, *, pretrained: bool) -> nn.Module:
        """The toy network with an unused buffer."""
        network = super().build(pretrained=pretrained)
        network.get_submodule("2").register_buffer("ballast", torch.zeros(1000))
        return network


class Broken(Renamed):
    """Fails when it is built."""

    def build(self, *, pretrained: bool) -> NoReturn:
        """Fail."""
        raise RuntimeError("no such thing")


class Interrupting(Renamed):
    """The user presses Ctrl-C while it is built."""

    def build(self, *, pretrained: bool) -> NoReturn:
        """Press Ctrl-C."""
        raise KeyboardInterrupt


class NoGradient(torch.autograd.Function):
    """Identity without a gradient."""

    @staticmethod
    def forward(context: object, features: torch.Tensor) -> torch.Tensor:
        """Return a copy."""
        return features.clone()

    @staticmethod
    def backward(context: object, *gradients: object) -> NoReturn:
        """Fail."""
        raise RuntimeError("no way back")


class NoGradientLayer(nn.Module):
    """A layer that cannot be trained through."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return a copy."""
        return NoGradient.apply(features)  # type: ignore[no-any-return]


class ForwardOnly(ToyBackbone):
    """Extracts features, but cannot be trained."""

    def build(self, *, pretrained: bool) -> nn.Module:
        """The toy network with a layer without gradient at its end."""
        network = super().build(pretrained=pretrained)
        network.get_submodule("2").append(NoGradientLayer())  # type: ignore[operator]
        return network


class ClosedForm(Strategy):
    """A logistic head."""

    name: ClassVar[str] = "closed_form"
    summary: ClassVar[str] = "closed form"

    def recipe(self, situation: Situation) -> Recipe:
        """No phase."""
        return Recipe(head=Head(solver="logistic"))

    def expect(self, situation: Situation) -> Expectation:
        """No gain."""
        return Expectation(suits=True, gain=0.0, gain_sd=0.0, why="takes seconds")


class FineTuned(Strategy):
    """Trains all blocks and expects a large gain."""

    name: ClassVar[str] = "fine_tuned"
    summary: ClassVar[str] = "trains"
    expectation: ClassVar[Expectation] = Expectation(suits=True, gain=0.2, gain_sd=0.02, why="large gain expected")

    def recipe(self, situation: Situation) -> Recipe:
        """One phase."""
        return Recipe(phases=(ALL_BLOCKS,), batch_size=8)

    def expect(self, situation: Situation) -> Expectation:
        """Return the class's expectation."""
        return self.expectation


class SecondBest(FineTuned):
    """Expects half of that gain."""

    name: ClassVar[str] = "second_best"
    expectation: ClassVar[Expectation] = Expectation(suits=True, gain=0.1, gain_sd=0.02, why="smaller gain expected")


class Modest(FineTuned):
    """Expects 0.2 pp."""

    expectation: ClassVar[Expectation] = Expectation(suits=True, gain=0.002, gain_sd=0.0001, why="tiny gain expected")


class Hopeless(FineTuned):
    """Expects a loss."""

    expectation: ClassVar[Expectation] = Expectation(suits=True, gain=-0.3, gain_sd=0.01, why="a bad idea")


class Unsuitable(FineTuned):
    """Does not suit any data."""

    expectation: ClassVar[Expectation] = Expectation(suits=False, why="not for this")


class FromScratch(FineTuned):
    """Starts from random weights."""

    name: ClassVar[str] = "from_scratch"
    expectation: ClassVar[Expectation] = Expectation(suits=True, gain=-0.1, gain_sd=0.1, why="random weights")

    def recipe(self, situation: Situation) -> Recipe:
        """The same phase without pretrained weights."""
        return super().recipe(situation).model_copy(update={"pretrained": False})


def catalog_of(backbones: Sequence[Backbone], strategies: Sequence[Strategy]) -> Catalog:
    """Return a catalog of third-party plugins."""

    def entry(kind: str, name: str) -> PluginEntry:
        return PluginEntry.model_validate(
            {"kind": kind, "name": name, "distribution": "third-party", "version": "1", "entry_point": "third_party:it"}
        )

    catalog = Catalog(())
    catalog.backbones = {backbone.card.name: LoadedBackbone(entry("backbones", "toy"), backbone) for backbone in backbones}
    catalog.strategies = {strategy.name: LoadedStrategy(entry("strategy", strategy.name), strategy) for strategy in strategies}
    return catalog


def evidence_of(
    dataset: Dataset,
    folder: Path,
    constraints: Constraints = Constraints(),
    *,
    cache_dir: Path | None = None,
    progress: Progress = QUIET,
    kind: type[EvidenceCollector] = EvidenceCollector,
) -> EvidenceCollector:
    """Return an evidence collector that works in ``folder``.

    Args:
        dataset: to collect evidence on.
        folder: for scratch files.
        constraints: give the budget.
        cache_dir: shared by several collectors; absent: inside ``folder``.
        progress: receives messages.
        kind: ``EvidenceCollector`` or one with fixed answers.
    """
    (folder / "scratch").mkdir(exist_ok=True)
    workspace = Workspace(
        folder=folder / "scratch",
        cache_dir=cache_dir or folder / "cache",
        deadline=Deadline(constraints.budget_s),
        progress=progress,
    )
    profile = make_profile(dataset.records, dataset.report)
    return kind(profile, dataset.images, dataset.index.classes, workspace, constraints)


@dataclass
class FixedProbes(EvidenceCollector):
    """Every probe gets two of five images wrong, at a fixed speed; no image is read."""

    def probe(self, backbone: LoadedBackbone, *, solver: Solver = DEFAULT_SOLVER, levels: Probe | None = None) -> Probe:
        """Build the network, but do not use it."""
        images = self.sample()
        with backbone.error_boundary("was probed"):
            network = backbone.build(pretrained=True)
        predicted = np.where(np.arange(len(images)) % 5 < 2, (images.labels + 1) % len(self.classes), images.labels)
        return Probe(
            backbone=backbone,
            num_blocks=3,
            size_mib=sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()) / 2**20,
            speed=Speed(load_s=0.001, forward_s=0.001, latency_ms=1.0),
            labels=images.labels,
            weights=self.weights(images),
            features=np.zeros((len(images), backbone.card.feature_dim), np.float32),
            log_probabilities=np.log(0.9 * np.eye(len(self.classes))[predicted] + 0.1 / len(self.classes)),
            similarity=0.5,
            metric=self.metric,
        )

    def probe_with_levels(self, backbone: LoadedBackbone) -> list[Probe]:
        """Return a probe of the backbone alone."""
        return [self.probe(backbone)]

    def probe_ensemble(self, members: Sequence[Probe]) -> Probe:
        """Return the first member's predictions at the cost of all."""
        size_mib = sum(member.size_mib for member in members)
        latency_ms = sum(member.speed.latency_ms for member in members)
        return replace(
            members[0],
            backbone=Ensemble([member.backbone for member in members]),
            size_mib=size_mib,
            speed=Speed(load_s=0.001, forward_s=0.001 * len(members), latency_ms=latency_ms),
            is_cached=False,
        )


@dataclass
class FixedCosts(FixedProbes):
    """Training takes 10 s, 20 s more for the refit, 5 s to finish; its trials get every validation image right."""

    def training_speed(self, backbone: LoadedBackbone) -> TrainingSpeed:
        """Return a speed that only predicted memory depends on."""
        return TrainingSpeed(forward_s=(0.01,) * 3, step_s=(0.03,) * 3, activations_mib=(1.0,) * 3)

    def training_cost(self, probe: Probe, recipe: Recipe) -> TrainingCost:
        """Scale with the epochs."""
        share = recipe.phases[0].epochs / ALL_BLOCKS.epochs
        return TrainingCost(10 * share, 20 * share, 5)

    def trial(self, plan: Plan, backbone: LoadedBackbone, epochs: int) -> Trial:
        """Return a perfect model beside a probe that gets every second image wrong."""
        labels, num_classes = self.images["validation"].labels, len(self.classes)
        probe_labels = np.where(np.arange(len(labels)) % 2 == 0, labels, (labels + 1) % num_classes)
        right, half_right = (0.9 * np.eye(num_classes)[predicted] + 0.1 / num_classes for predicted in (labels, probe_labels))
        return Trial(labels, right, half_right, kept_share=1.0, is_worse=False)
