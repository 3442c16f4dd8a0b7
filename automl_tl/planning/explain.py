"""Explain a decision: the plan with its reasons, the rejected candidates, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from automl_tl.planning.candidates import Candidate
from automl_tl.planning.comparison import compare
from automl_tl.planning.limits import ANY, NOT_LOCAL, reject_backbone
from automl_tl.planning.probe import EvidenceCollector, Probe
from automl_tl.plugin_host import PLUS, LoadedStrategy
from automl_tl.runtime.formatting import percent
from automl_tl.values import BackboneCard, CandidateVerdict, Estimate, Plan, Recipe

__all__ = ["draft_plan", "explain_plan", "list_rejected", "no_signal"]


def draft_plan(
    evidence: EvidenceCollector,
    card: BackboneCard,
    strategy: LoadedStrategy,
    recipe: Recipe,
    *,
    expected: Estimate | None = None,
    reasons: tuple[str, ...] = (),
) -> Plan:
    """Return a plan without candidates, as a trial needs it.

    Args:
        evidence: gives constraints and profile.
        card: of the backbone.
        strategy: with its options.
        recipe: of the strategy.
        expected: accuracy and costs; absent: unknown.
        reasons: for the user.
    """
    return Plan(
        backbone=card.name,
        strategy=strategy.name,
        strategy_options=strategy.options,
        recipe=recipe,
        preprocessing=card.preprocessing,
        constraints=evidence.constraints,
        profile=evidence.profile,
        expected=expected or Estimate(),
        reasons=reasons,
    )


def explain_plan(
    evidence: EvidenceCollector,
    chosen: Candidate,
    strategy: LoadedStrategy,
    probes: Sequence[Probe],
    verdicts: Sequence[CandidateVerdict],
    changes: Sequence[str],
) -> Plan:
    """Return the plan for the choice, with its reasons and what would change it.

    Args:
        evidence: of the dataset.
        chosen: with its final recipe.
        strategy: of ``chosen``.
        probes: of the backbones, without ensembles.
        verdicts: on all candidates, the choice first.
        changes: limits and budgets that would change the decision.
    """
    probe = chosen.probe
    has_ensembles = any(PLUS in each.backbone for each in verdicts)
    reasons = [_why_backbone(probe, probes, has_ensembles=has_ensembles), f"{chosen.strategy}: {chosen.reason}"]
    if probe.similarity is not None:
        reasons.append(f"similarity to the pretraining data {probe.similarity:.2f} (confidence of the pretrained classifier)")
    if evidence.profile.label_noise:
        reasons.append(f"{percent(evidence.profile.label_noise)} of the labels look wrong to the probe")
    if (warning := no_signal(probe)) is not None:
        evidence.workspace.progress.warn(warning)
        reasons.append(warning)
    plan = draft_plan(
        evidence, probe.card, strategy, chosen.recipe, expected=_in_time(evidence, chosen), reasons=tuple(reasons)
    )
    more_data = (*_more_images(probe, probes), *_small_classes(evidence))
    return plan.model_copy(
        update={
            "similarity": probe.similarity,
            "candidates": tuple(verdicts),
            "changes": (*changes, *more_data),
            "trained_s": round(chosen.trained_s, 3),
        }
    )


def _in_time(evidence: EvidenceCollector, chosen: Candidate) -> Estimate:
    """Cap the predicted seconds by the time left: with less time, the fit uses fewer images."""
    estimate = chosen.estimate
    if estimate.seconds is None or evidence.workspace.deadline.is_ended:
        return estimate
    left_s = chosen.trained_s + max(evidence.seconds_left, 0.0)
    return estimate.model_copy(update={"seconds": round(min(estimate.seconds, left_s), 1)})


def _why_backbone(chosen: Probe, probes: Sequence[Probe], *, has_ensembles: bool) -> str:
    """Explain the choice of the backbone against the best alternative."""
    accuracy = f"{percent(chosen.accuracy)} out-of-fold accuracy with a linear probe"
    others = [probe for probe in probes if probe is not chosen]
    if not others:
        return f"{chosen.name}: {accuracy}, the only remaining backbone"
    rival = max(others, key=lambda probe: probe.accuracy)
    found = compare(chosen.probabilities, rival.probabilities, chosen.labels)
    among = f"{len(probes)} backbones" + (" and their ensembles" if has_ensembles else "")
    return f"{chosen.name}: {accuracy}, chosen among {among} ({found.text} against {rival.name})"


def _more_images(chosen: Probe, probes: Sequence[Probe]) -> Iterator[str]:
    """Yield how many images would separate ``chosen`` from each backbone that it cannot be separated from yet."""
    for probe in (each for each in probes if each is not chosen):
        found = compare(chosen.probabilities, probe.probabilities, chosen.labels)
        if found.result == "not enough data":
            yield f"{found.num_needed} training images would separate {chosen.name} from {probe.name}"


def _small_classes(evidence: EvidenceCollector) -> Iterator[str]:
    fewest = evidence.profile.min_images_per_class
    if fewest < 5:
        name = next(name for name, count in evidence.profile.images_per_class.items() if count == fewest)
        yield f"class {name!r} has only {fewest} training images; add images (at least 20) to measure its recall"


def no_signal(probe: Probe) -> str | None:
    """Return a warning if the probe is hardly better than always predicting the most frequent class, else ``None``."""
    counts = np.bincount(probe.labels, weights=probe.weights)
    share, n = float(counts.max() / counts.sum()), len(probe.labels)
    if probe.accuracy - share > 3 * (share * (1 - share) / n) ** 0.5:
        return None
    return f"no signal: {percent(probe.accuracy)} out of fold; always predicting the most frequent class gives {percent(share)}"


def list_rejected(rejected: Sequence[CandidateVerdict]) -> list[CandidateVerdict]:
    """Return the verdicts of all stages for a plan: strategies, then backbones. Those without local weights are counted."""
    distinct = {(each.backbone, each.strategy): each for each in rejected}.values()
    strategies = [each for each in distinct if each.strategy != ANY]
    backbones = [each for each in distinct if each.strategy == ANY]
    local = [each for each in backbones if each.reason not in NOT_LOCAL]
    num_away = len(backbones) - len(local)
    away = [reject_backbone(f"{num_away} more", "no local pretrained weights")] if num_away else []
    return [*strategies, *local, *away]
