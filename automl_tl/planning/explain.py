"""Explain the decision: render it as a plan with reasons, rejected candidates, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from automl_tl.planning.case import Case
from automl_tl.planning.constraints import adapted
from automl_tl.planning.decision import Arm, Choice
from automl_tl.planning.limits import NOT_HERE
from automl_tl.planning.probes import Probe
from automl_tl.planning.verdicts import compare
from automl_tl.plugin_host import PLUS, LoadedStrategy
from automl_tl.runtime.formatting import percent
from automl_tl.values import BackboneCard, Candidate, Estimate, Plan, Recipe

__all__ = ["no_signal", "plan_of", "render_plan", "undecided", "why_backbone"]


def render_plan(case: Case, choice: Choice, probes: Sequence[Probe], learner: Probe, recipes: Mapping[str, Recipe]) -> Plan:
    """Return the plan for the choice; a recipe made for the ``learner`` is remade for another backbone."""
    arm = choice.arm
    chosen = next(probe for probe in probes if probe.name == arm.backbone)
    strategy = next(each for each in case.strategies if each.name == arm.strategy)
    recipe = recipes[arm.strategy]
    if chosen is not learner:
        situation = case.situation(chosen.backbone.card, chosen.num_blocks, chosen)
        recipe = adapted(strategy.recipe(situation), case.constraints)
    reasons = [why_backbone(chosen, probes), f"{arm.strategy}: {arm.why}"]
    if chosen.similarity is not None:
        reasons.append(f"similarity to the pretraining data {chosen.similarity:.2f} (confidence of the pretrained classifier)")
    if case.profile.label_noise:
        reasons.append(f"{percent(case.profile.label_noise)} of the labels look wrong to the probe")
    if (warning := no_signal(chosen)) is not None:
        case.lab.workspace.progress.warn(warning)
        reasons.append(warning)
    plan = plan_of(case, chosen.backbone.card, strategy, recipe, expected=_in_time(case, arm), reasons=tuple(reasons))
    alone = [probe for probe in probes if PLUS not in probe.name]
    changes = (*case.changes, *undecided(chosen, alone), *_what_cannot_be_known(case))
    candidates = (*choice.candidates, *plan.candidates)
    more = {"similarity": chosen.similarity, "changes": changes, "candidates": candidates, "trained_s": round(arm.trained_s, 3)}
    return plan.model_copy(update=more)


def _in_time(case: Case, arm: Arm) -> Estimate:
    """Cap the estimated seconds by the time left; with less time, the head is fitted on fewer images."""
    estimate = arm.estimate
    if estimate.seconds is None or case.lab.workspace.deadline.is_ended:
        return estimate
    most_s = arm.trained_s + max(case.seconds_left, 0.0)
    return estimate.model_copy(update={"seconds": round(min(estimate.seconds, most_s), 1)})


def _what_cannot_be_known(case: Case) -> Iterator[str]:
    fewest = case.profile.min_images_per_class
    if fewest < 5:
        classes = [name for name, count in case.profile.images_per_class.items() if count == fewest]
        yield f"class {classes[0]!r} has only {fewest} training images; add images (at least 20) to measure its recall"


def plan_of(
    case: Case,
    card: BackboneCard,
    strategy: LoadedStrategy,
    recipe: Recipe,
    *,
    expected: Estimate,
    reasons: tuple[str, ...],
) -> Plan:
    """Return a plan for ``strategy`` on a backbone; its candidates are the excluded ones."""
    return Plan(
        backbone=card.name,
        strategy=strategy.name,
        strategy_options=strategy.options,
        recipe=recipe,
        preprocessing=card.preprocessing,
        constraints=case.constraints,
        profile=case.profile,
        expected=expected,
        reasons=reasons,
        candidates=tuple(_left_out_of(case)),
    )


def _left_out_of(case: Case) -> Iterator[Candidate]:
    """Yield what was not tried and why. Backbones without local weights are counted, not listed."""
    yield from case.rejected_strategies
    here = {name: reason for name, reason in case.refused.items() if reason not in NOT_HERE}
    for backbone, reason in here.items():
        yield _left_out(backbone, reason)
    if away := len(case.refused) - len(here):
        yield _left_out(f"{away} more", "no local pretrained weights")


def _left_out(backbone: str, reason: str) -> Candidate:
    return Candidate(backbone=backbone, strategy="any", estimate=Estimate(), verdict="rejected", reason=reason)


def why_backbone(chosen: Probe, probes: Sequence[Probe]) -> str:
    """Explain the choice of the backbone against the best alternative."""
    probed = f"{percent(chosen.accuracy)} out-of-fold accuracy with a linear probe"
    alone = [probe for probe in probes if PLUS not in probe.name]
    others = [probe for probe in alone if probe is not chosen]
    if not others:
        return f"{chosen.name}: {probed}, the only remaining backbone"
    rival = max(others, key=lambda probe: probe.accuracy)
    verdict = compare(chosen.probabilities, rival.probabilities, chosen.labels)
    among = f"{len(alone)} backbones" + (" and their ensembles" if len(alone) < len(probes) else "")
    return f"{chosen.name}: {probed}, chosen among {among} ({verdict.text} against {rival.name})"


def undecided(chosen: Probe, probes: Sequence[Probe]) -> Iterator[str]:
    """Yield how many images would separate ``chosen`` from each backbone it cannot be separated from yet."""
    for probe in probes:
        if probe is not chosen:
            found = compare(chosen.probabilities, probe.probabilities, chosen.labels)
            if found.word == "not enough data":
                yield f"{found.num_needed} training images would separate {chosen.name} from {probe.name}"


def no_signal(probe: Probe) -> str | None:
    """Return a warning if the probe is hardly better than always predicting the most frequent class."""
    counts = np.bincount(probe.labels, weights=probe.weights)
    share, n = float(counts.max() / counts.sum()), len(probe.labels)
    if probe.accuracy - share > 3 * (share * (1 - share) / n) ** 0.5:
        return None
    return f"no signal: {percent(probe.accuracy)} out of fold; always predicting the most frequent class gives {percent(share)}"
