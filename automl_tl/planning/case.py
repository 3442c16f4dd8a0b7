"""What is planned for: images, offers, constraints, and what was ruled out on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from automl_tl.contracts import Situation
from automl_tl.planning.cost import Workload
from automl_tl.planning.probes import Lab, Probe
from automl_tl.plugin_host import Catalog, LoadedStrategy
from automl_tl.values import BackboneCard, Candidate, Constraints, DatasetProfile, Estimate

__all__ = ["GAIN_OF_BUDGET", "Case"]

GAIN_PER_S: Final = 0.03 / 60  # without a budget, a minute has to be expected to bring three points
GAIN_OF_BUDGET: Final = 0.005  # with one, all of it half a point: its time was granted (decision 42)
NOTHING_KNOWN: Final = Estimate()


@dataclass
class Case:
    """One data set, and what is gathered on the way: ``changes`` would change the decision."""

    profile: DatasetProfile
    catalog: Catalog
    constraints: Constraints
    lab: Lab
    cards: Sequence[BackboneCard]  # cheapest first
    strategies: Sequence[LoadedStrategy]
    refused: dict[str, str]  # backbones, with why they are out
    turned_down: list[Candidate] = field(default_factory=list)  # strategies that are not tried
    changes: list[str] = field(default_factory=list)

    @property
    def is_asked_for(self) -> bool:
        """The user chose the strategies, so none is too dear."""
        return bool(self.constraints.strategies or self.constraints.hidden_dims)

    @property
    def seconds_left(self) -> float:
        """Of the budget; without one there is no end."""
        return self.lab.workspace.deadline.left_s

    @property
    def gain_per_s(self) -> float:
        """Accuracy that each second has to be expected to bring, or it isn't spent."""
        return GAIN_OF_BUDGET / self.constraints.budget_s if self.constraints.budget_s else GAIN_PER_S

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why backbones and strategies are out, by name."""
        return self.refused | {f"{each.backbone} with {each.strategy}": each.reason for each in self.turned_down}

    def turn_down(self, backbone: str, strategy: str, reason: str, estimate: Estimate = NOTHING_KNOWN) -> None:
        """Note why ``strategy`` isn't tried, with what it would have come to as far as that is known."""
        self.turned_down.append(
            Candidate(backbone=backbone, strategy=strategy, estimate=estimate, verdict="not_tried", reason=reason)
        )

    def too_dear(self, gain: float, seconds: float, *, at_least: str = "") -> str:
        """Why ``gain`` isn't worth ``seconds``, in words."""
        limit = "with this budget" if self.constraints.budget_s else "without a budget"
        return f"{100 * gain:+.1f} points expected for {at_least}{seconds / 60:.1f} minutes: {limit} too dear"

    @property
    def work(self) -> Workload:
        """Numbers of images."""
        return Workload.of(self.profile, len(self.lab.images["validation"]))

    def situation(self, card: BackboneCard, num_blocks: int, probe: Probe | None = None) -> Situation:
        """What a strategy is told; with a ``probe``, what that found as well."""
        return Situation(
            num_images=self.profile.num_images,
            num_classes=self.profile.num_classes,
            min_images_per_class=self.profile.min_images_per_class,
            imbalance=self.profile.imbalance,
            num_blocks=num_blocks,
            feature_dim=card.feature_dim,
            image_side_px=card.preprocessing.side_px,
            similarity=None if probe is None else probe.similarity,
            probe_accuracy=None if probe is None else probe.accuracy,
        )
