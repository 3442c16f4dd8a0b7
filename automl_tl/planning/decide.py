"""Choose one candidate by a stated rule, and explain the choice in a plan.

Candidates that violate a limit or do not fit the budget are dropped. Those within one standard error of the most accurate one,
but at most 0.5 pp, are tied; among them the lowest latency wins, then the smallest size, then the shortest fit or, within a
budget, the highest accuracy. Latencies near the lowest count as equal, as measurements jitter: of these, the backbone with the
fewest multiply-accumulates wins. ``--optimize`` changes tolerance and order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil, inf
from typing import Final

import numpy as np

from automl_tl.errors import UnsatisfiableConstraintsError
from automl_tl.evaluation import metric_value
from automl_tl.evaluation.calibration import STRONGLY_IMBALANCED
from automl_tl.planning.candidates import Candidate
from automl_tl.planning.comparison import compare
from automl_tl.planning.cost import time_short
from automl_tl.planning.evidence import EvidenceCollector, Probe
from automl_tl.planning.limits import ANY, NOT_LOCAL, reject_backbone
from automl_tl.plugin_host import LEVELS, PLUS, LoadedStrategy
from automl_tl.runtime.formatting import metric_name, metric_text, percent
from automl_tl.training.class_weights import weights_of
from automl_tl.values import IMBALANCED, BackboneCard, CandidateVerdict, Constraints, Estimate, Plan, Recipe

Rule = Callable[..., tuple[Candidate, list[CandidateVerdict]]]
"""``choose`` with some of its arguments bound."""

# Accuracy that a tie may cost, by what is optimized. Our own rule; benchmarks/planner_regret.py measures it.
TOLERANCE: Final = {"accuracy": 0.0, "balanced": 0.005, "latency": 0.02, "size": 0.02}
# Latencies up to so many times the lowest count as equal: on a busy machine, one network differs by as much (decision 63).
EQUAL_LATENCIES: Final = 1.5
# Seconds up to so many times the fewest are never too slow: predictions are not that exact, and something has to be published.
SAME_TIME: Final = 1.1
# A constraint, the cost it limits, its option and unit.
LIMITS: Final = (("max_latency_ms", "latency_ms", "--max-latency", "ms"), ("max_size_mib", "size_mib", "--max-size", "MiB"))


def choose(
    candidates: Sequence[Candidate],
    constraints: Constraints,
    *,
    standard_error: float,
    seconds_left: float = inf,
    min_tolerance: float = 0.0,
) -> tuple[Candidate, list[CandidateVerdict]]:
    """Return the candidate to choose, and a verdict on each: the choice first, then by accuracy.

    Args:
        candidates: at least one.
        constraints: give limits and what to optimize.
        standard_error: of accuracies on these images.
        seconds_left: of the budget. What takes no longer than ``SAME_TIME`` of the fastest is never too slow.
        min_tolerance: accuracy that a tie may cost at least.

    Raises:
        UnsatisfiableConstraintsError: every candidate violates a limit.
    """
    # 1) Limits and budget.
    reasons = _rule_out(candidates, constraints, seconds_left)
    remaining = _remaining(candidates, reasons)
    # 2) Ties, and the cheapest of them.
    tolerance = min(standard_error if constraints.optimize == "balanced" else inf, TOLERANCE[constraints.optimize])
    lowest = max(candidate.accuracy for candidate in remaining) - max(tolerance, min_tolerance)
    tied = [candidate for candidate in remaining if candidate.accuracy >= lowest]
    chosen = min(_near_lowest_latency(tied, constraints), key=lambda candidate: _price(candidate, constraints))
    pairs = sorted(zip(candidates, reasons, strict=True), key=lambda pair: (pair[0] is not chosen, -pair[0].accuracy))
    return chosen, [_judge(*pair, chosen, lowest, constraints) for pair in pairs]


def _rule_out(candidates: Sequence[Candidate], constraints: Constraints, seconds_left: float) -> list[str | None]:
    """Return why each candidate is out, or ``None``."""
    # 1) Limits.
    reasons = [_violation(candidate, constraints) for candidate in candidates]
    possible = _remaining(candidates, reasons)
    if not possible:
        limits = constraints.model_dump(include={"max_latency_ms", "max_size_mib"}, exclude_none=True)
        summary = ", ".join(f"{key} {value:.4g}" for key, value in limits.items())
        nearest = "; ".join(f"{candidate.name}: {reason}" for candidate, reason in zip(candidates, reasons, strict=True))
        raise UnsatisfiableConstraintsError(summary, f"Nearest: {nearest}")
    # 2) Drop candidates that were given up, unless none are left.
    if any(candidate.given_up is None for candidate in possible):
        reasons = [reason or candidate.given_up for candidate, reason in zip(candidates, reasons, strict=True)]
    # 3) Budget.
    limit_s = max(seconds_left, SAME_TIME * min(candidate.seconds for candidate in _remaining(candidates, reasons)))
    for place, candidate in enumerate(candidates):
        if reasons[place] is None and candidate.seconds > limit_s:
            reasons[place] = f"needs {time_short(candidate.seconds, seconds_left)}"
    return reasons


def _remaining(candidates: Sequence[Candidate], reasons: Sequence[str | None]) -> list[Candidate]:
    """Return the candidates that no reason rules out."""
    return [candidate for candidate, reason in zip(candidates, reasons, strict=True) if reason is None]


def _judge(
    candidate: Candidate, reason: str | None, chosen: Candidate, lowest: float, constraints: Constraints
) -> CandidateVerdict:
    """Return the verdict on a candidate that ``reason`` rules out, or that is compared with the choice."""
    if candidate is chosen:
        return candidate.judge("chosen", candidate.reason)
    if reason is not None:
        return candidate.judge("rejected", reason)
    difference = f"{100 * (candidate.accuracy - chosen.accuracy):+.1f} pp expected against the choice"
    if candidate.accuracy < lowest:
        return candidate.judge("rejected", difference)
    is_equal = _prediction_cost(candidate, constraints) == _prediction_cost(chosen, constraints)
    by_accuracy = is_equal and candidate.seconds < chosen.seconds
    rule = "equal latency, the more accurate wins" if by_accuracy else "the cheaper wins"
    return candidate.judge("tied", f"{difference}; tied: {rule}")


def _violation(candidate: Candidate, constraints: Constraints) -> str | None:
    if constraints.max_latency_ms is not None and candidate.latency_ms > constraints.max_latency_ms:
        return f"{candidate.latency_ms:.4g} ms per image; the limit is {constraints.max_latency_ms:.4g}"
    if constraints.max_size_mib is not None and candidate.size_mib > constraints.max_size_mib:
        return f"{candidate.size_mib:.4g} MiB; the limit is {constraints.max_size_mib:.4g}"
    return None


def _near_lowest_latency(candidates: Sequence[Candidate], constraints: Constraints) -> list[Candidate]:
    """Return those of ``candidates`` that need the fewest multiply-accumulates among those near the lowest latency."""
    if constraints.optimize in ("latency", "size"):
        return list(candidates)
    limit_ms = EQUAL_LATENCIES * min(candidate.latency_ms for candidate in candidates)
    near = [candidate for candidate in candidates if candidate.latency_ms <= limit_ms]
    fewest = min(_num_macs(candidate) for candidate in near)
    return [candidate for candidate in near if _num_macs(candidate) == fewest]


def _num_macs(candidate: Candidate) -> float:
    return candidate.probe.card.num_macs or inf


def _price(candidate: Candidate, constraints: Constraints) -> tuple[float, ...]:
    cost = _prediction_cost(candidate, constraints)
    return (*cost, candidate.seconds) if constraints.budget_s is None else (*cost, -candidate.accuracy, candidate.seconds)


def _prediction_cost(candidate: Candidate, constraints: Constraints) -> tuple[float, float]:
    cost = candidate.latency_ms, candidate.size_mib
    return cost[::-1] if constraints.optimize == "size" else cost


def limits_that_would_change(
    candidates: Sequence[Candidate], chosen: Candidate, constraints: Constraints, rule: Rule
) -> Iterator[str]:
    """Yield the smallest ``--max-latency`` and ``--max-size`` that would change the choice, as sentences.

    Args:
        candidates: that were compared.
        chosen: one of them.
        constraints: with the present limits.
        rule: that chose.
    """
    for limit, cost, option, unit in LIMITS:
        allowed = getattr(constraints, limit)
        costs = [getattr(candidate, cost) for candidate in candidates]
        for needed in sorted({ceil(value) for value in costs if allowed is not None and value > allowed}):
            other, _ = rule(candidates, constraints=constraints.model_copy(update={limit: needed}))
            if other is not chosen:
                gain = f"{100 * (other.accuracy - chosen.accuracy):+.1f} pp expected"
                yield f"with {option} {needed}{unit}, {other.name} is chosen: {gain}"
                break


def draft_plan(
    evidence: EvidenceCollector, card: BackboneCard, strategy: LoadedStrategy, recipe: Recipe, *, processes: int
) -> Plan:
    """Return a plan without estimates, reasons and candidates, as a trial needs it.

    Args:
        evidence: gives constraints and profile.
        card: of the backbone.
        strategy: with its options.
        recipe: of the strategy, for the backbone.
        processes: that train it.
    """
    return Plan(
        backbone=card.name,
        strategy=strategy.name,
        strategy_options=strategy.options,
        recipe=recipe,
        processes=processes,
        preprocessing=card.preprocessing,
        constraints=evidence.constraints,
        profile=evidence.profile,
        expected=Estimate(),
        reasons=(),
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
        evidence: gives constraints and profile.
        chosen: candidate.
        strategy: of ``chosen``.
        probes: of single backbones.
        verdicts: on all candidates, the choice first.
        changes: limits and budgets that would change the choice.
    """
    probe = chosen.probe
    has_ensembles = any(PLUS in verdict.backbone for verdict in verdicts)
    is_imbalanced = evidence.profile.imbalance > IMBALANCED
    backbone = _why_backbone(probe, probes, has_ensembles=has_ensembles, is_imbalanced=is_imbalanced)
    reasons = [backbone, f"{chosen.strategy}: {chosen.reason}"]
    if probe.similarity is not None:
        reasons.append(f"similarity to the pretraining data {probe.similarity:.2f} (confidence of the pretrained classifier)")
    if evidence.profile.label_noise:
        reasons.append(f"{percent(evidence.profile.label_noise)} of the labels look wrong to the probe")
    if evidence.profile.grouping:
        reasons.append(evidence.profile.grouping)
    if is_imbalanced:
        reasons.append(_imbalance(evidence, probe))
    reasons += _objective(evidence.constraints)
    if (warning := no_signal(probe)) is not None:
        evidence.workspace.progress.warn(warning)
        reasons.append(warning)
    if chosen.cost.processes_reason:
        reasons.append(chosen.cost.processes_reason)
    elif (requested := evidence.constraints.processes or 1) > 1:
        reasons.append(f"{requested} processes train it" if chosen.recipe.phases else "one process fits a closed-form head")
    return draft_plan(evidence, chosen.card, strategy, chosen.recipe, processes=chosen.cost.processes).model_copy(
        update={
            "averaged": chosen.averaged_with is not None,
            "expected": _in_time(evidence, chosen),
            "reasons": tuple(reasons),
            "similarity": probe.similarity,
            "candidates": tuple(verdicts),
            "changes": (*changes, *_more_images(probe, probes), *_small_classes(evidence), *_other_metric(evidence)),
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


def _why_backbone(chosen: Probe, probes: Sequence[Probe], *, has_ensembles: bool, is_imbalanced: bool) -> str:
    """Explain the choice of the backbone against the best alternative."""
    accuracy = f"{percent(chosen.accuracy)} out-of-fold accuracy with a linear probe"
    if chosen.metric != "accuracy":
        value = metric_text(chosen.metric, metric_value(chosen.metric, chosen.score.value))
        accuracy = f"{value} out-of-fold {metric_name(chosen.metric)}, {accuracy}"
    elif is_imbalanced:
        accuracy = f"{percent(chosen.balanced_accuracy)} out-of-fold balanced accuracy, {accuracy}"
    others = [probe for probe in probes if probe is not chosen]
    if not others:
        return f"{chosen.name}: {accuracy}, the only remaining backbone"
    rival = max(others, key=lambda probe: probe.score.value)
    comparison = compare(chosen.probabilities, rival.probabilities, chosen.labels, chosen.metric)
    extras = ["levels"] * any(probe.parts for probe in probes) + ["ensembles"] * has_ensembles
    num_backbones = len({probe.name.removesuffix(LEVELS) for probe in probes})
    backbones, their = ("1 backbone", "its") if num_backbones == 1 else (f"{num_backbones} backbones", "their")
    among = backbones + (f" and {their} {' and '.join(extras)}" if extras else "")
    return f"{chosen.name}: {accuracy}, chosen among {among} ({comparison.text} against {rival.name})"


def _objective(constraints: Constraints) -> Iterator[str]:
    """Yield what models are chosen by and how classes count, as far as the user asked for it."""
    if constraints.metric is not None:
        yield f"models are chosen by {metric_name(constraints.metric)}"
    weights = weights_of(constraints)
    if weights == "balanced":
        yield "class weights: balanced, so that every class counts alike"
    elif weights == "sqrt":
        yield "class weights: square roots of the balanced ones"
    elif weights != "none":
        yield "class weights: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items()) + ", others 1"


def _imbalance(evidence: EvidenceCollector, probe: Probe) -> str:
    """State what accuracy hides where classes are imbalanced."""
    counts, recalls = evidence.profile.images_per_class, probe.recalls
    largest, smallest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    lowest = min(recalls, key=lambda label: (recalls[label][0] / recalls[label][1], label))
    found, total = recalls[lowest]
    is_adjusted = evidence.profile.imbalance > STRONGLY_IMBALANCED
    return (
        f"imbalanced classes ({largest} {counts[largest]}, {smallest} {counts[smallest]} images): "
        f"lowest out-of-fold recall {evidence.classes[lowest]} {found} of {total}"
        + (", with logits adjusted for rare classes" if is_adjusted else "")
    )


def _more_images(chosen: Probe, probes: Sequence[Probe]) -> Iterator[str]:
    """Yield how many images would separate ``chosen`` from each backbone that it cannot be separated from yet."""
    for probe in probes:
        if probe is not chosen:
            comparison = compare(chosen.probabilities, probe.probabilities, chosen.labels, chosen.metric)
            if comparison.result == "not enough data":
                yield f"{comparison.num_needed} training images would separate {chosen.name} from {probe.name}"


def _small_classes(evidence: EvidenceCollector) -> Iterator[str]:
    fewest = evidence.profile.min_images_per_class
    if fewest < 5:
        name = next(name for name, count in evidence.profile.images_per_class.items() if count == fewest)
        images = "image" if fewest == 1 else "images"
        yield f"class {name!r} has only {fewest} training {images}; add images (at least 20) to measure its recall"


def _other_metric(evidence: EvidenceCollector) -> Iterator[str]:
    if evidence.profile.imbalance > IMBALANCED and evidence.constraints.metric is None:
        yield "with --metric balanced_accuracy, rare classes count as much as frequent ones in training and in the choice"


def no_signal(probe: Probe) -> str | None:
    """Return a warning if the probe is hardly better than always predicting the most frequent class, else ``None``."""
    counts = np.bincount(probe.labels, weights=probe.weights)
    share, n = float(counts.max() / counts.sum()), len(probe.labels)
    value, baseline = probe.accuracy, share
    if probe.metric == "balanced_accuracy":
        value, baseline, n = probe.score.value, 1 / int((counts > 0).sum()), int(probe.score.num_effective)
    if value - baseline > 3 * (baseline * (1 - baseline) / n) ** 0.5:
        return None
    what = " balanced accuracy" if probe.metric == "balanced_accuracy" else ""
    best = f"always predicting the most frequent class gives {percent(baseline)}"
    return f"no signal: {percent(value)}{what} out of fold; {best}"


def list_rejected(rejected: Sequence[CandidateVerdict]) -> list[CandidateVerdict]:
    """Return the verdicts of all stages for a plan: strategies, then backbones. Those without local weights are counted."""
    distinct = {(verdict.backbone, verdict.strategy): verdict for verdict in rejected}.values()
    strategies = [verdict for verdict in distinct if verdict.strategy != ANY]
    backbones = [verdict for verdict in distinct if verdict.strategy == ANY]
    local = [verdict for verdict in backbones if verdict.reason not in NOT_LOCAL]
    num_away = len(backbones) - len(local)
    away = [reject_backbone(f"{num_away} more", "no local pretrained weights")] if num_away else []
    return [*strategies, *local, *away]
