"""How the probes stand: an arm for each, alone or side by side, with what is usual weighed against what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from automl_tl.evaluation import wilson
from automl_tl.planning.case import Case
from automl_tl.planning.cost import memory_mib, seconds_of_probe
from automl_tl.planning.decision import Arm, predictive_sd
from automl_tl.planning.probes import Probe
from automl_tl.planning.verdicts import compare, shrunk
from automl_tl.plugin_host import PLUS, ensemble
from automl_tl.runtime.formatting import percent, percent_range
from automl_tl.training.run import DEFAULT_SOLVER
from automl_tl.values import Recipe

__all__ = ["USUAL_GAIN", "side_by_side", "solved_arms", "standing_of", "worth_joining"]

# Near-equal backbones are taken to be equal, give or take this share of the errors, until the images say otherwise: that a
# backbone is better on ImageNet said nothing here (decision 24; Fang et al., arXiv 2301.04644, found the same).
EQUAL_SD: Final = 0.15
USUAL_GAIN: Final = 0.08  # share of the errors that each further backbone beside the first takes away (decision 30)


def standing_of(case: Case, probes: Sequence[Probe], first: Probe) -> list[Arm]:
    """The backbones as arms with a linear probe; differences that were measured are weighed against what is usual."""
    work = case.work
    errors = max(1 - first.accuracy, 1 / len(first.labels))
    arms = []
    for probe in probes:
        accuracy = first.accuracy
        if probe is not first:
            found = compare(probe.probabilities, first.probabilities, first.labels)
            usual = USUAL_GAIN * probe.name.count(PLUS) * errors
            gain, _ = shrunk(found.difference, found.standard_error, usual, EQUAL_SD * errors)
            accuracy += gain
        interval = percent_range(wilson(round(probe.accuracy * len(probe.labels)), len(probe.labels)))
        arms.append(
            Arm(
                backbone=probe.name,
                strategy="",
                accuracy=min(max(accuracy, 0.0), 1.0),
                sd=predictive_sd(probe.accuracy, len(probe.labels), case.profile.num_test_images),
                source=f"5-fold probe of {len(probe.labels)} images: {percent(probe.accuracy)} ({interval})",
                seconds=seconds_of_probe(
                    probe.speed,
                    work,
                    feature_dim=probe.features.shape[1],
                    num_cached=len(probe.labels) * probe.is_kept,
                    publishing_s=case.lab.workspace.publishing_s(probe.size_mib),
                ),
                latency_ms=probe.speed.latency_ms,
                size_mib=probe.size_mib,
                memory_mib=memory_mib(Recipe(), None, probe.backbone.card.num_parameters),
                why="",
            )
        )
    return arms


def solved_arms(case: Case, solved: Mapping[str, Recipe], standing: Sequence[Arm], probes: Sequence[Probe]) -> list[Arm]:
    """An arm per backbone and solved strategy; another solver than the probes' is solved for itself."""
    arms = []
    for strategy in (each for each in case.strategies if each.name in solved):
        solver = solved[strategy.name].head.solver or DEFAULT_SOLVER
        for arm, probe in zip(standing, probes, strict=True):
            situation = case.situation(probe.backbone.card, probe.num_blocks, probe)
            named = replace(arm, strategy=strategy.name, why=strategy.expect(situation).why)
            if solver != DEFAULT_SOLVER:
                other = case.lab.probe(probe.backbone, case.lab.sample(), solver)
                found = compare(other.probabilities, probe.probabilities, probe.labels)
                named = replace(named, accuracy=min(max(arm.accuracy + found.difference, 0.0), 1.0))
            arms.append(named)
    return arms


def side_by_side(case: Case, probes: Sequence[Probe]) -> list[Probe]:
    """The best two backbones side by side, the best three, unless the user named those to choose from."""
    if case.constraints.backbones:
        return []
    ranked, images = sorted(probes, key=lambda probe: -probe.accuracy), case.lab.sample()
    joined = []
    for count in range(2, len(ranked) + 1):
        members = [probe for probe in probes if probe in ranked[:count]]  # the cheapest first
        backbone = ensemble([member.backbone for member in members])
        if not case.catalog.leaves_out(backbone.card.name):
            joined.append(case.lab.together(backbone, members, images))
    return joined


def worth_joining(case: Case, arms: Sequence[Arm], leading: Arm) -> list[Arm]:
    """Those that bring enough for the time that their features take."""
    worth = []
    for arm in arms:
        gain, seconds = arm.accuracy - leading.accuracy, arm.seconds - leading.seconds
        if gain < case.gain_per_s * seconds:
            case.refused[arm.backbone] = case.too_expensive(gain, seconds)
        else:
            worth.append(arm)
    return worth
