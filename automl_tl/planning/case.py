"""The planning context: dataset, candidates, constraints, and what has been ruled out."""

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

GAIN_PER_S: Final = 0.03 / 60  # without a budget, a minute must be expected to gain 3 pp
GAIN_OF_BUDGET: Final = 0.005  # with one, all of it must gain 0.5 pp: its time was granted (decision 42)
NOTHING_KNOWN: Final = Estimate()


@dataclass
class Case:
    """One dataset and the evidence collected so far; ``changes`` lists what would change the decision."""

    profile: DatasetProfile
    catalog: Catalog
    constraints: Constraints
    lab: Lab
    cards: Sequence[BackboneCard]  # cheapest first
    strategies: Sequence[LoadedStrategy]
    refused: dict[str, str]  # backbones, with why they are out
    rejected_strategies: list[Candidate] = field(default_factory=list)  # strategies that are not tried
    changes: list[str] = field(default_factory=list)

    @property
    def is_asked_for(self) -> bool:
        """Whether the user chose the strategies, so that none is too expensive."""
        return bool(self.constraints.strategies or self.constraints.hidden_dims)

    @property
    def seconds_left(self) -> float:
        """Seconds left in the budget; infinite without one."""
        return self.lab.workspace.deadline.left_s

    @property
    def gain_per_s(self) -> float:
        """Accuracy that each second must be expected to gain to be spent."""
        return GAIN_OF_BUDGET / self.constraints.budget_s if self.constraints.budget_s else GAIN_PER_S

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why backbones and strategies are excluded, by name."""
        return self.refused | {f"{each.backbone} with {each.strategy}": each.reason for each in self.rejected_strategies}

    def reject_strategy(self, backbone: str, strategy: str, reason: str, estimate: Estimate = NOTHING_KNOWN) -> None:
        """Record why ``strategy`` is not tried, with its estimate if known."""
        self.rejected_strategies.append(
            Candidate(backbone=backbone, strategy=strategy, estimate=estimate, verdict="not_tried", reason=reason)
        )

    def too_expensive(self, gain: float, seconds: float, *, at_least: str = "") -> str:
        """Explain why ``gain`` is not worth ``seconds``."""
        hint = "of this budget" if self.constraints.budget_s else "(set --budget to try it)"
        return f"expected gain of {100 * gain:+.1f} pp is not worth {at_least}{seconds / 60:.1f} min {hint}"

    @property
    def work(self) -> Workload:
        """Numbers of images."""
        return Workload.of(self.profile, len(self.lab.images["validation"]))

    def situation(self, card: BackboneCard, num_blocks: int, probe: Probe | None = None) -> Situation:
        """Return what a strategy may know; a ``probe`` adds measured facts."""
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
