"""The decision rule on fake candidates: it is total, monotone and repeatable, and respects limits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from automl_tl.errors import UnsatisfiableConstraintsError
from automl_tl.planning.candidates import Candidate
from automl_tl.planning.decide import TOLERANCE, choose, limits_that_would_change
from automl_tl.plugin_host import LoadedBackbone
from automl_tl.values import Constraints
from tests.planning.fake_candidates import PROBE, fake_candidate

FRACTIONS = st.floats(0, 1, allow_nan=False)
COSTS = st.floats(0.1, 1000, allow_nan=False)


CANDIDATES = st.lists(
    st.builds(
        fake_candidate,
        FRACTIONS,
        seconds=COSTS,
        latency_ms=COSTS,
        size_mib=COSTS,
        strategy=st.sampled_from(["probe", "tail"]),
        given_up=st.sampled_from([None, None, None, "fell behind"]),
    ),
    min_size=1,
    max_size=6,
)
GOALS = st.sampled_from(["accuracy", "balanced", "latency", "size"])


@settings(max_examples=50)
@given(candidates=CANDIDATES, goal=GOALS, left_s=st.floats(-10, 1e4), standard_error=st.floats(0.001, 0.2))
def test_choose_returns_one_choice_and_a_verdict_on_every_candidate(
    candidates: list[Candidate], goal: str, left_s: float, standard_error: float
) -> None:
    constraints = Constraints.model_validate({"optimize": goal})

    chosen, verdicts = choose(candidates, constraints, standard_error=standard_error, seconds_left=left_s)

    assert chosen in candidates
    assert len(verdicts) == len(candidates)
    assert verdicts[0].verdict == "chosen"
    assert all(verdict.reason for verdict in verdicts)
    assert choose(candidates, constraints, standard_error=standard_error, seconds_left=left_s) == (chosen, verdicts)


def test_choose_takes_what_was_given_up_only_if_there_is_nothing_else() -> None:
    given_up = fake_candidate(0.95, strategy="tail", given_up="fell behind")

    chosen, verdicts = choose([given_up, fake_candidate(0.8)], Constraints(), standard_error=0.01)

    assert chosen.strategy == "probe"
    assert (verdicts[1].strategy, verdicts[1].reason) == ("tail", "fell behind")
    assert choose([given_up], Constraints(), standard_error=0.01)[0] is given_up


@settings(max_examples=50)
@given(candidates=CANDIDATES, goal=GOALS, less_s=COSTS, more_s=COSTS, budget_s=st.sampled_from([None, 600.0]))
def test_choose_with_more_time_never_costs_more_than_the_tolerance(
    candidates: list[Candidate], goal: str, less_s: float, more_s: float, budget_s: float | None
) -> None:
    assume(less_s <= more_s)
    constraints = Constraints.model_validate({"optimize": goal, "budget_s": budget_s})

    little, much = (choose(candidates, constraints, standard_error=0.01, seconds_left=left_s)[0] for left_s in (less_s, more_s))

    assert much.accuracy >= little.accuracy - TOLERANCE[goal] - 1e-12


@settings(max_examples=50)
@given(candidates=CANDIDATES, goal=st.sampled_from(["accuracy", "balanced", "latency"]), strict_ms=COSTS, loose_ms=COSTS)
def test_choose_with_a_stricter_latency_is_never_slower(
    candidates: list[Candidate], goal: str, strict_ms: float, loose_ms: float
) -> None:
    assume(strict_ms <= loose_ms)
    assume(any(candidate.latency_ms <= strict_ms for candidate in candidates))

    strict, loose = (
        choose(candidates, Constraints.model_validate({"optimize": goal, "max_latency_ms": limit}), standard_error=0.01)[0]
        for limit in (strict_ms, loose_ms)
    )

    assert strict.latency_ms <= strict_ms
    assert strict.latency_ms <= loose.latency_ms


@settings(max_examples=50)
@given(candidates=CANDIDATES, limit_mib=COSTS, limit_ms=COSTS)
def test_choose_never_violates_a_limit(candidates: list[Candidate], limit_mib: float, limit_ms: float) -> None:
    constraints = Constraints(max_size_mib=limit_mib, max_latency_ms=limit_ms)
    if any(candidate.size_mib <= limit_mib and candidate.latency_ms <= limit_ms for candidate in candidates):
        chosen, _ = choose(candidates, constraints, standard_error=0.01)
        assert chosen.size_mib <= limit_mib
        assert chosen.latency_ms <= limit_ms
    else:
        with pytest.raises(UnsatisfiableConstraintsError, match="the limit is"):
            choose(candidates, constraints, standard_error=0.01)


def test_choose_takes_the_faster_within_the_tolerance_and_the_better_beyond_it() -> None:
    fast, slow = fake_candidate(0.900, latency_ms=10), fake_candidate(0.904, latency_ms=30)

    assert choose([slow, fast], Constraints(), standard_error=0.02)[0] is fast
    assert choose([slow, fast], Constraints(optimize="accuracy"), standard_error=0.02)[0] is slow
    assert choose([slow, fast], Constraints(), standard_error=0.001)[0] is slow
    assert choose([replace(slow, accuracy=0.93), fast], Constraints(), standard_error=0.02)[0].accuracy == 0.93


@pytest.mark.parametrize(("seconds", "chosen"), [(6.3, 0.9), (9.0, 0.8)])
def test_choose_without_time_for_any_takes_the_best_of_those_about_as_fast(seconds: float, chosen: float) -> None:
    fastest, better = fake_candidate(0.8, seconds=6.0), fake_candidate(0.9, seconds=seconds)

    assert choose([fastest, better], Constraints(), standard_error=0.01, seconds_left=5.0)[0].accuracy == chosen


@pytest.mark.parametrize(("measured_ms", "again_ms"), [((20, 24), (24, 20)), ((20, 29), (20, 31))])
def test_choose_ignores_the_jitter_of_measured_latencies(
    measured_ms: tuple[float, float], again_ms: tuple[float, float]
) -> None:
    def choice(latencies_ms: tuple[float, float]) -> str:
        cards = [PROBE.card.model_copy(update={"num_macs": num_macs}) for num_macs in (1000, 2000)]
        probes = [replace(PROBE, backbone=cast(LoadedBackbone, SimpleNamespace(card=card))) for card in cards]
        light, heavy = (
            replace(fake_candidate(latency_ms=latency_ms), probe=probe, backbone=name)
            for latency_ms, probe, name in zip(latencies_ms, probes, ("light", "heavy"), strict=True)
        )
        return choose([heavy, light], Constraints(), standard_error=0.02)[0].backbone

    assert choice(measured_ms) == choice(again_ms) == "light"


def test_choose_within_a_budget_ignores_fit_time() -> None:
    probe, tail = fake_candidate(0.900, seconds=10), fake_candidate(0.903, seconds=90, strategy="tail")

    chosen, verdicts = choose([probe, tail], Constraints(budget_s=600), standard_error=0.02)

    assert chosen is tail
    assert "equal latency, the more accurate wins" in verdicts[1].reason
    assert choose([probe, tail], Constraints(), standard_error=0.02)[0] is probe
    assert choose([probe, replace(tail, latency_ms=30)], Constraints(budget_s=600), standard_error=0.02)[0] is probe


def test_choose_drops_what_does_not_fit_the_time_but_never_everything() -> None:
    probe, long = fake_candidate(0.8, seconds=10), fake_candidate(0.9, seconds=300, strategy="long")

    chosen, verdicts = choose([probe, long], Constraints(), standard_error=0.01, seconds_left=100)

    assert chosen is probe
    assert "300 s" in verdicts[1].reason
    assert choose([probe, long], Constraints(), standard_error=0.01, seconds_left=-5)[0] is probe


def test_choose_names_the_nearest_if_every_candidate_violates_a_limit() -> None:
    with pytest.raises(UnsatisfiableConstraintsError, match="Nearest: a/backbone: 20 ms per image; the limit is 1"):
        choose([fake_candidate(strategy="")], Constraints(max_latency_ms=1), standard_error=0.01)
    with pytest.raises(UnsatisfiableConstraintsError, match="Nearest: tail on a/backbone: 20 ms"):
        choose([fake_candidate(strategy="tail")], Constraints(max_latency_ms=1), standard_error=0.01)


def test_limits_that_would_change_says_what_a_limit_costs() -> None:
    small = fake_candidate(0.90, latency_ms=10, size_mib=5)
    large = fake_candidate(0.95, latency_ms=30.5, size_mib=20, strategy="tail")

    def changes(**limits: float) -> list[str]:
        constraints = Constraints.model_validate(limits)
        return list(limits_that_would_change([small, large], small, constraints, partial(choose, standard_error=0.01)))

    assert changes(max_latency_ms=20) == ["with --max-latency 31ms, tail on a/backbone is chosen: +5.0 pp expected"]
    assert changes(max_size_mib=10) == ["with --max-size 20MiB, tail on a/backbone is chosen: +5.0 pp expected"]
    assert changes(max_latency_ms=20, max_size_mib=10) == []  # one of them alone changes nothing
    assert changes() == []
