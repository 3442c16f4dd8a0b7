"""Deadlines and stopwatches."""

from __future__ import annotations

from automl_tl.runtime.budget import Deadline, Stopwatch


def test_deadline_counts_down_and_without_budget_never_ends() -> None:
    ticks = iter([10.0, 14.0, 31.0])
    deadline = Deadline(20.0, lambda: next(ticks))

    assert deadline.left_s == 16.0
    assert deadline.left_s == -1.0
    assert Deadline().left_s == float("inf")


def test_deadline_can_be_ended() -> None:
    deadline = Deadline()

    deadline.end()

    assert deadline.left_s == 0.0


def test_deadline_does_not_count_a_pause() -> None:
    times = iter((0.0, 1.0, 5.0, 6.0))
    deadline = Deadline(10.0, clock=lambda: next(times))

    with deadline.paused():
        pass

    assert deadline.spent_s == 2.0


def test_stopwatch_adds_up_each_step() -> None:
    ticks = iter([0.0, 2.0, 5.0, 6.0])
    watch = Stopwatch(lambda: next(ticks))

    watch.lap("a")
    watch.lap("b")
    watch.lap("a")

    assert watch.seconds == {"a": 3.0, "b": 3.0}
