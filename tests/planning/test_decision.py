"""The rule of the decision: total, obedient, monotone, and the same whenever it is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from automl_tl.errors import UnsatisfiableConstraintsError
from automl_tl.planning.decision import TOLERANCE, Arm, choose, predictive_sd, with_other_limits
from automl_tl.values import Constraints

FRACTIONS = st.floats(0, 1, allow_nan=False)
COSTS = st.floats(0.1, 1000, allow_nan=False)


def arm(
    accuracy: float = 0.9,
    *,
    seconds: float = 10,
    latency_ms: float = 20,
    size_mib: float = 18,
    name: str = "probe",
    given_up: str | None = None,
) -> Arm:
    return Arm("a/backbone", name, accuracy, 0.02, "made up", seconds, latency_ms, size_mib, 1000, "a reason", given_up)


ARMS = st.lists(
    st.builds(
        arm,
        FRACTIONS,
        seconds=COSTS,
        latency_ms=COSTS,
        size_mib=COSTS,
        name=st.sampled_from(["probe", "tail"]),
        given_up=st.sampled_from([None, None, None, "fell behind"]),
    ),
    min_size=1,
    max_size=6,
)
GOALS = st.sampled_from(["accuracy", "balanced", "latency", "size"])


@given(arms=ARMS, goal=GOALS, left_s=st.floats(-10, 1e4), standard_error=st.floats(0.001, 0.2))
def test_there_is_always_one_choice_and_a_verdict_on_every_arm(
    arms: list[Arm], goal: str, left_s: float, standard_error: float
) -> None:
    constraints = Constraints.model_validate({"optimize": goal})

    choice = choose(arms, constraints, standard_error=standard_error, seconds_left=left_s)

    assert choice.arm in arms
    assert len(choice.candidates) == len(arms)
    assert choice.candidates[0].verdict == "chosen"
    assert all(candidate.reason for candidate in choice.candidates)
    assert choose(arms, constraints, standard_error=standard_error, seconds_left=left_s) == choice


def test_what_gave_up_its_race_is_chosen_only_if_nothing_else_is_there() -> None:
    given_up = replace(arm(0.95, name="tail"), given_up="fell behind in the race")

    choice = choose([given_up, arm(0.8)], Constraints(), standard_error=0.01)

    assert choice.arm.strategy == "probe"
    assert (choice.candidates[1].strategy, choice.candidates[1].reason) == ("tail", "fell behind in the race")
    assert choose([given_up], Constraints(), standard_error=0.01).arm is given_up


@given(arms=ARMS, goal=GOALS, less_s=COSTS, more_s=COSTS, budget_s=st.sampled_from([None, 600.0]))
def test_more_time_never_costs_more_than_the_tolerance(
    arms: list[Arm], goal: str, less_s: float, more_s: float, budget_s: float | None
) -> None:
    assume(less_s <= more_s)
    constraints = Constraints.model_validate({"optimize": goal, "budget_s": budget_s})

    little, much = (choose(arms, constraints, standard_error=0.01, seconds_left=left_s).arm for left_s in (less_s, more_s))

    assert much.accuracy >= little.accuracy - TOLERANCE[goal] - 1e-12


@given(arms=ARMS, goal=st.sampled_from(["accuracy", "balanced", "latency"]), strict_ms=COSTS, loose_ms=COSTS)
def test_a_stricter_latency_never_gets_a_slower_model(arms: list[Arm], goal: str, strict_ms: float, loose_ms: float) -> None:
    assume(strict_ms <= loose_ms)
    assume(any(each.latency_ms <= strict_ms for each in arms))

    strict, loose = (
        choose(arms, Constraints.model_validate({"optimize": goal, "max_latency_ms": limit}), standard_error=0.01).arm
        for limit in (strict_ms, loose_ms)
    )

    assert strict.latency_ms <= strict_ms
    assert strict.latency_ms <= loose.latency_ms


@given(arms=ARMS, limit_mib=COSTS, limit_ms=COSTS)
def test_no_limit_is_ever_broken(arms: list[Arm], limit_mib: float, limit_ms: float) -> None:
    constraints = Constraints(max_size_mib=limit_mib, max_latency_ms=limit_ms)
    if any(each.size_mib <= limit_mib and each.latency_ms <= limit_ms for each in arms):
        chosen = choose(arms, constraints, standard_error=0.01).arm
        assert chosen.size_mib <= limit_mib
        assert chosen.latency_ms <= limit_ms
    else:
        with pytest.raises(UnsatisfiableConstraintsError, match="the limit is"):
            choose(arms, constraints, standard_error=0.01)


def test_within_the_tolerance_the_quicker_wins_and_beyond_it_the_better() -> None:
    quick, slow = arm(0.900, latency_ms=10), arm(0.904, latency_ms=30)

    assert choose([slow, quick], Constraints(), standard_error=0.02).arm is quick
    assert choose([slow, quick], Constraints(optimize="accuracy"), standard_error=0.02).arm is slow
    assert choose([slow, quick], Constraints(), standard_error=0.001).arm is slow
    assert choose([replace(slow, accuracy=0.93), quick], Constraints(), standard_error=0.02).arm.accuracy == 0.93


def test_seconds_that_were_granted_are_no_price() -> None:
    probe, tail = arm(0.900, seconds=10), arm(0.903, seconds=90, name="tail")

    within = choose([probe, tail], Constraints(budget_s=600), standard_error=0.02)

    assert within.arm is tail
    assert "equal latency, the more accurate wins" in within.candidates[1].reason
    assert choose([probe, tail], Constraints(), standard_error=0.02).arm is probe
    assert choose([probe, replace(tail, latency_ms=30)], Constraints(budget_s=600), standard_error=0.02).arm is probe


def test_what_does_not_fit_into_the_time_is_out_but_something_is_always_published() -> None:
    probe, long = arm(0.8, seconds=10), arm(0.9, seconds=300, name="long")

    assert choose([probe, long], Constraints(), standard_error=0.01, seconds_left=100).arm is probe
    assert choose([probe, long], Constraints(), standard_error=0.01, seconds_left=-5).arm is probe
    assert "300 s" in choose([probe, long], Constraints(), standard_error=0.01, seconds_left=100).candidates[1].reason


def test_what_a_limit_costs_is_said() -> None:
    small, large = arm(0.90, latency_ms=10, size_mib=5), arm(0.95, latency_ms=30.5, size_mib=20, name="tail")

    def changes(**limits: float) -> list[str]:
        return list(with_other_limits([small, large], Constraints.model_validate(limits), small, standard_error=0.01))

    assert changes(max_latency_ms=20) == ["with --max-latency 31ms, tail on a/backbone is chosen: +5.0 pp expected"]
    assert changes(max_size_mib=10) == ["with --max-size 20MiB, tail on a/backbone is chosen: +5.0 pp expected"]
    assert changes(max_latency_ms=20, max_size_mib=10) == []  # one of them alone changes nothing
    assert changes() == []


def test_few_test_images_make_a_wide_interval() -> None:
    assert predictive_sd(0.9, 100, 20) > predictive_sd(0.9, 100, 1000) > predictive_sd(0.9, 10_000, 1000) > 0


def test_a_limit_that_all_break_is_answered_with_what_comes_nearest() -> None:
    with pytest.raises(UnsatisfiableConstraintsError, match="Nearest: a/backbone: 20 ms per image; the limit is 1"):
        choose([arm(name="")], Constraints(max_latency_ms=1), standard_error=0.01)
    with pytest.raises(UnsatisfiableConstraintsError, match="Nearest: tail on a/backbone: 20 ms"):
        choose([arm(name="tail")], Constraints(max_latency_ms=1), standard_error=0.01)
