"""Choose one candidate, a backbone with a strategy, by a stated rule.

Candidates that violate a limit or do not fit the budget are dropped. All candidates within the tolerance of the most
accurate one are tied; among those, the lowest latency wins, then the smallest size, then the shortest fit. The tolerance
is one standard error, but at most 0.5 pp; ``--optimize`` changes it. Within a budget, fit time does not count: among
candidates with equal prediction cost, the more accurate wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf, sqrt
from typing import Final

from automl_tl.errors import UnsatisfiableConstraintsError
from automl_tl.values import Candidate, Constraints, Estimate, Interval

__all__ = ["Arm", "Choice", "choose", "predictive_sd", "time_short", "with_other_limits"]

# How much accuracy a tie may cost, and what decides among the tied. A rule of ours; benchmarks/planner_regret.py measures it.
TOLERANCE: Final = {"accuracy": 0.0, "balanced": 0.005, "latency": 0.02, "size": 0.02}
# Test parts differ from the images to learn from by more than chance: photographers, plates, patients. On thirty pairs of ten
# sets and three backbones by this much (decision 24).
SHIFT_SD: Final = 0.025
# A wish, what of an arm it limits, its option and unit.
LIMITS: Final = (("max_latency_ms", "latency_ms", "--max-latency", "ms"), ("max_size_mib", "size_mib", "--max-size", "MiB"))


@dataclass(frozen=True)
class Arm:
    """A pair of a backbone and a strategy: expected accuracy (0 to 1) with its standard deviation, and costs."""

    backbone: str
    strategy: str
    accuracy: float
    sd: float
    source: str
    seconds: float
    latency_ms: float
    size_mib: float
    memory_mib: float
    why: str
    given_up: str | None = None  # why it is out of its race
    foreseen_s: float | None = None  # all of it, before it was trained in a race: ``seconds`` is what is left then
    trained_s: float = 0.0  # in races

    @property
    def interval(self) -> Interval:
        """95%, of what the test will say."""
        return (max(0.0, self.accuracy - 1.96 * self.sd), min(1.0, self.accuracy + 1.96 * self.sd))

    @property
    def estimate(self) -> Estimate:
        """As a value."""
        return Estimate(
            accuracy=min(max(self.accuracy, 0.0), 1.0),
            accuracy_interval=self.interval,
            accuracy_source=self.source,
            seconds=round(self.seconds if self.foreseen_s is None else self.foreseen_s, 1),
            latency_ms=round(self.latency_ms, 1),
            size_mib=round(self.size_mib, 2),
            memory_mib=self.memory_mib,
        )


@dataclass(frozen=True)
class Choice:
    """The arm that was chosen, and a verdict on each."""

    arm: Arm
    candidates: tuple[Candidate, ...]


def predictive_sd(accuracy: float, num_images: int, num_test: int) -> float:
    """Standard deviation of a test accuracy on ``num_test`` images, foreseen from ``accuracy`` on ``num_images`` out of fold.

    Chance in both counts (Agresti and Coull's adjusted share) and the shift between the two.
    """
    share = (accuracy * num_images + 2) / (num_images + 4)
    return sqrt(share * (1 - share) * (1 / num_images + 1 / max(num_test, 1)) + SHIFT_SD**2)


def choose(
    arms: Sequence[Arm],
    constraints: Constraints,
    *,
    standard_error: float,
    seconds_left: float = inf,
    least_tolerance: float = 0.0,
) -> Choice:
    """Choose among ``arms``, at least one.

    Args:
        arms: in the order in which they were thought of.
        constraints: limits, and what to optimize.
        standard_error: of accuracies on these images, 0 to 1.
        seconds_left: of the budget. The arm that is done first is never out for its time: something has to be published.
        least_tolerance: what a tie may cost at least, accuracy.

    Raises:
        UnsatisfiableConstraintsError: every arm breaks a limit.
    """
    broken = [_broken_limit(arm, constraints) for arm in arms]
    possible = [arm for arm, reason in zip(arms, broken, strict=True) if reason is None]
    if not possible:
        nearest = "; ".join(f"{_name(arm)}: {reason}" for arm, reason in zip(arms, broken, strict=True))
        limits = constraints.model_dump(include={"max_latency_ms", "max_size_mib"}, exclude_none=True)
        raise UnsatisfiableConstraintsError(
            ", ".join(f"{key} {value:.4g}" for key, value in limits.items()), f"Nearest: {nearest}"
        )
    going_on = [arm for arm in possible if arm.given_up is None] or possible
    first_done = min(going_on, key=lambda arm: arm.seconds)
    in_time = [arm for arm in going_on if arm.seconds <= seconds_left or arm is first_done]
    lowest = max(arm.accuracy for arm in in_time) - max(_tolerance(constraints, standard_error), least_tolerance)
    chosen = min((arm for arm in in_time if arm.accuracy >= lowest), key=lambda arm: _price(arm, constraints))

    def verdict(arm: Arm, reason: str | None) -> Candidate:
        if arm is chosen:
            return _candidate(arm, "chosen", arm.why)
        if reason is None and arm not in going_on:
            reason = arm.given_up
        if reason is not None:
            return _candidate(arm, "rejected", reason)
        if arm not in in_time:
            return _candidate(arm, "rejected", f"needs {time_short(arm.seconds, seconds_left)}")
        difference = f"{100 * (arm.accuracy - chosen.accuracy):+.1f} pp expected against the choice"
        if arm.accuracy >= lowest:
            is_by_accuracy = arm.seconds < chosen.seconds and _of_prediction(arm, constraints) == _of_prediction(
                chosen, constraints
            )
            winner = "equal latency, the more accurate wins" if is_by_accuracy else "the cheaper wins"
            return _candidate(arm, "tied", f"{difference}; tied: {winner}")
        return _candidate(arm, "rejected", difference)

    candidates = map(verdict, arms, broken)
    ranked = sorted(candidates, key=lambda each: (each.verdict != "chosen", -(each.estimate.accuracy or 0)))
    return Choice(chosen, tuple(ranked))


def with_other_limits(
    arms: Sequence[Arm], constraints: Constraints, chosen: Arm, *, standard_error: float, seconds_left: float = inf
) -> Iterator[str]:
    """What ``--max-latency`` or ``--max-size`` would have to be for another arm than ``chosen`` to win by the same rule."""
    for limit, cost, option, unit in LIMITS:
        allowed = getattr(constraints, limit)
        costs = [getattr(arm, cost) for arm in arms]
        for needed in sorted({ceil(each) for each in costs if allowed is not None and each > allowed}):
            wider = constraints.model_copy(update={limit: needed})
            other = choose(arms, wider, standard_error=standard_error, seconds_left=seconds_left).arm
            if other is not chosen:
                gain = f"{100 * (other.accuracy - chosen.accuracy):+.1f} pp expected"
                yield f"with {option} {needed}{unit}, {_name(other)} is chosen: {gain}"
                break


def _name(arm: Arm) -> str:
    """The backbone alone where no strategy has a say yet."""
    return f"{arm.strategy} on {arm.backbone}" if arm.strategy else arm.backbone


def time_short(needed_s: float, left_s: float) -> str:
    """Both in words: rounded apart, so that they are never said to be equal."""
    return f"{ceil(needed_s)} s; {int(max(left_s, 0))} s left"


def _tolerance(constraints: Constraints, standard_error: float) -> float:
    most = TOLERANCE[constraints.optimize]
    return min(standard_error, most) if constraints.optimize == "balanced" else most


def _broken_limit(arm: Arm, constraints: Constraints) -> str | None:
    if constraints.max_latency_ms is not None and arm.latency_ms > constraints.max_latency_ms:
        return f"{arm.latency_ms:.4g} ms per image; the limit is {constraints.max_latency_ms:.4g}"
    if constraints.max_size_mib is not None and arm.size_mib > constraints.max_size_mib:
        return f"{arm.size_mib:.4g} MiB; the limit is {constraints.max_size_mib:.4g}"
    return None


def _price(arm: Arm, constraints: Constraints) -> tuple[float, ...]:
    of_prediction = _of_prediction(arm, constraints)
    return (*of_prediction, arm.seconds) if constraints.budget_s is None else (*of_prediction, -arm.accuracy, arm.seconds)


def _of_prediction(arm: Arm, constraints: Constraints) -> tuple[float, float]:
    return (arm.size_mib, arm.latency_ms) if constraints.optimize == "size" else (arm.latency_ms, arm.size_mib)


def _candidate(arm: Arm, verdict: str, reason: str) -> Candidate:
    return Candidate.model_validate(
        {"backbone": arm.backbone, "strategy": arm.strategy, "estimate": arm.estimate, "verdict": verdict, "reason": reason}
    )
