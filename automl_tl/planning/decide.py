"""Choose one candidate by a stated rule.

Candidates that violate a limit or do not fit the budget are dropped. All candidates within the tolerance of the most
accurate one are tied; among those, the lowest latency wins, then the smallest size, then the shortest fit. The tolerance
is one standard error, but at most 0.5 pp; ``--optimize`` changes it. Within a budget, fit time does not count: among
candidates with equal prediction cost, the more accurate wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import ceil, inf
from typing import Final

from automl_tl.errors import UnsatisfiableConstraintsError
from automl_tl.planning.candidates import Candidate, is_worth_training
from automl_tl.planning.comparison import EQUAL_WITHIN
from automl_tl.planning.cost import time_short
from automl_tl.planning.limits import best_on_imagenet_first
from automl_tl.planning.probe import EvidenceCollector
from automl_tl.plugin_host import LoadedStrategy
from automl_tl.values import CandidateVerdict, Constraints

__all__ = ["choose", "limits_that_would_change", "select_backbone_to_train"]

Rule = Callable[..., tuple[Candidate, list[CandidateVerdict]]]
"""``choose`` with some of its arguments bound."""

# Accuracy that a tie may cost, by what is optimized. Our own rule; benchmarks/planner_regret.py measures it.
TOLERANCE: Final = {"accuracy": 0.0, "balanced": 0.005, "latency": 0.02, "size": 0.02}
# A constraint, the cost it limits, its option and unit.
LIMITS: Final = (("max_latency_ms", "latency_ms", "--max-latency", "ms"), ("max_size_mib", "size_mib", "--max-size", "MiB"))
CHEAPEST: Final = "; on the cheapest backbone within 1 pp of the best after fine-tuning"
BEST_ON_IMAGENET: Final = "; on the backbone with the best ImageNet accuracy among those within 1 pp after fine-tuning"


def choose(
    candidates: Sequence[Candidate],
    constraints: Constraints,
    *,
    standard_error: float,
    seconds_left: float = inf,
    min_tolerance: float = 0.0,
) -> tuple[Candidate, list[CandidateVerdict]]:
    """Choose one of ``candidates``.

    Args:
        candidates: at least one.
        constraints: limits, and what to optimize.
        standard_error: of accuracies on these images, 0 to 1.
        seconds_left: of the budget. The candidate that finishes first is never too slow: something has to be published.
        min_tolerance: accuracy that a tie may cost at least.

    Returns:
        The choice, and a verdict on each candidate, the choice first and then by accuracy.

    Raises:
        UnsatisfiableConstraintsError: every candidate violates a limit.
    """
    # 1) Limits, and candidates that were given up, unless there is no other.
    violations = [_violation(candidate, constraints) for candidate in candidates]
    possible = [candidate for candidate, violation in zip(candidates, violations, strict=True) if violation is None]
    if not possible:
        nearest = "; ".join(f"{each.name}: {violation}" for each, violation in zip(candidates, violations, strict=True))
        limits = constraints.model_dump(include={"max_latency_ms", "max_size_mib"}, exclude_none=True)
        raise UnsatisfiableConstraintsError(
            ", ".join(f"{key} {value:.4g}" for key, value in limits.items()), f"Nearest: {nearest}"
        )
    running = [candidate for candidate in possible if candidate.given_up is None] or possible
    # 2) Budget.
    first_done = min(running, key=lambda candidate: candidate.seconds)
    in_time = [candidate for candidate in running if candidate.seconds <= seconds_left or candidate is first_done]
    # 3) Ties, and the cheapest of them.
    lowest = max(each.accuracy for each in in_time) - max(_tolerance(constraints, standard_error), min_tolerance)
    chosen = min((each for each in in_time if each.accuracy >= lowest), key=lambda each: _price(each, constraints))

    def verdict(candidate: Candidate, violation: str | None) -> CandidateVerdict:
        if candidate is chosen:
            return candidate.judge("chosen", candidate.reason)
        if violation is None and candidate not in running:
            violation = candidate.given_up
        if violation is not None:
            return candidate.judge("rejected", violation)
        if candidate not in in_time:
            return candidate.judge("rejected", f"needs {time_short(candidate.seconds, seconds_left)}")
        difference = f"{100 * (candidate.accuracy - chosen.accuracy):+.1f} pp expected against the choice"
        if candidate.accuracy < lowest:
            return candidate.judge("rejected", difference)
        is_equal = _prediction_cost(candidate, constraints) == _prediction_cost(chosen, constraints)
        by_accuracy = is_equal and candidate.seconds < chosen.seconds
        rule = "equal latency, the more accurate wins" if by_accuracy else "the cheaper wins"
        return candidate.judge("tied", f"{difference}; tied: {rule}")

    verdicts = map(verdict, candidates, violations)
    return chosen, sorted(verdicts, key=lambda each: (each.verdict != "chosen", -(each.estimate.accuracy or 0)))


def _violation(candidate: Candidate, constraints: Constraints) -> str | None:
    if constraints.max_latency_ms is not None and candidate.latency_ms > constraints.max_latency_ms:
        return f"{candidate.latency_ms:.4g} ms per image; the limit is {constraints.max_latency_ms:.4g}"
    if constraints.max_size_mib is not None and candidate.size_mib > constraints.max_size_mib:
        return f"{candidate.size_mib:.4g} MiB; the limit is {constraints.max_size_mib:.4g}"
    return None


def _tolerance(constraints: Constraints, standard_error: float) -> float:
    largest = TOLERANCE[constraints.optimize]
    return min(standard_error, largest) if constraints.optimize == "balanced" else largest


def _price(candidate: Candidate, constraints: Constraints) -> tuple[float, ...]:
    cost = _prediction_cost(candidate, constraints)
    return (*cost, candidate.seconds) if constraints.budget_s is None else (*cost, -candidate.accuracy, candidate.seconds)


def _prediction_cost(candidate: Candidate, constraints: Constraints) -> tuple[float, float]:
    cost = candidate.latency_ms, candidate.size_mib
    return cost[::-1] if constraints.optimize == "size" else cost


def limits_that_would_change(
    candidates: Sequence[Candidate], chosen: Candidate, constraints: Constraints, rule: Rule
) -> Iterator[str]:
    """Yield the smallest ``--max-latency`` and ``--max-size`` with which another candidate would win.

    Args:
        candidates: that were chosen from.
        chosen: the choice under these limits.
        constraints: the limits.
        rule: ``choose`` with everything but ``candidates`` and ``constraints``.
    """
    for limit, cost, option, unit in LIMITS:
        allowed = getattr(constraints, limit)
        costs = [getattr(candidate, cost) for candidate in candidates]
        for needed in sorted({ceil(each) for each in costs if allowed is not None and each > allowed}):
            other, _ = rule(candidates, constraints=constraints.model_copy(update={limit: needed}))
            if other is not chosen:
                gain = f"{100 * (other.accuracy - chosen.accuracy):+.1f} pp expected"
                yield f"with {option} {needed}{unit}, {other.name} is chosen: {gain}"
                break


def select_backbone_to_train(
    evidence: EvidenceCollector,
    strategies: Sequence[LoadedStrategy],
    candidates: Sequence[Candidate],
    best: Candidate,
    rule: Rule,
) -> Candidate:
    """Select the backbone to fine-tune: the cheapest whose expected fine-tuned accuracy is within 1 pp of the best.

    Differences between near-equal backbones before fine-tuning do not predict those after it, and similarities of different
    backbones are not comparable (decision 42). With ``--optimize accuracy`` it is the backbone with the best ImageNet
    accuracy that can be trained in full (decision 44).

    Args:
        evidence: facts about the images; measures training speeds.
        strategies: state their expected gains.
        candidates: one per backbone, without a strategy.
        best: the one that would be chosen without fine-tuning.
        rule: ``choose`` with everything but ``candidates``, ``seconds_left`` and ``min_tolerance``.
    """
    # 1) Expected accuracy after fine-tuning, all backbones at the similarity of the best.
    bases = {each.backbone: replace(each, behind=max(best.accuracy - each.accuracy, 0.0)) for each in candidates}
    tuned = []
    for base in bases.values():
        probe = replace(base.probe, similarity=best.probe.similarity)
        situation = evidence.situation(probe.card, probe.num_blocks, probe)
        expectations = (strategy.expect(situation) for strategy in strategies)
        gain = max((each.gain for each in expectations if each.suits), default=0.0)
        tuned.append(replace(base, accuracy=base.accuracy + gain))
    # 2) The same rule as for the final choice, but within 1 pp all are tied.
    chosen, verdicts = rule(tuned, seconds_left=evidence.seconds_left, min_tolerance=EQUAL_WITHIN)
    cheapest = bases[chosen.backbone]
    # 3) For accuracy alone, the best on ImageNet among the tied, if there is time to train it in full.
    if evidence.constraints.optimize == "accuracy":
        tied = [bases[each.backbone] for each in verdicts if each.verdict in ("chosen", "tied")]
        for card in best_on_imagenet_first([base.probe.card for base in tied]):
            base = bases[card.name]
            if base is cheapest:
                break
            if is_worth_training(evidence, strategies, base, best):
                return replace(base, reason=BEST_ON_IMAGENET)
    return replace(cheapest, reason=CHEAPEST) if cheapest.behind else cheapest
