"""Time: how much of a budget is left. The clock is injected, so that tests need not wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

__all__ = ["Deadline", "OutOfTime", "Stopwatch"]

Clock = Callable[[], float]


class OutOfTime(Exception):
    """The budget ended in the middle of work that can be left where it is."""


@dataclass
class Deadline:
    """The moment at which a command shall be done; ``budget_s`` absent means never."""

    budget_s: float | None = None
    clock: Clock = time.monotonic
    started_s: float = field(default=-1.0)
    is_ended: bool = False  # by Ctrl-C

    def __post_init__(self) -> None:
        if self.started_s < 0:
            self.started_s = self.clock()

    @property
    def spent_s(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started_s

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, negative after it."""
        if self.is_ended:
            return 0.0
        return inf if self.budget_s is None else self.budget_s - self.spent_s

    def end(self) -> None:
        """Leave nothing: who presses Ctrl-C wants what there is by now."""
        self.is_ended = True


class Stopwatch:
    """Seconds per named step, in the order of the steps."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._last_s = clock()
        self.seconds: dict[str, float] = {}

    def lap(self, step: str) -> None:
        """Book the time since the last lap on ``step``."""
        now_s = self._clock()
        self.seconds[step] = round(self.seconds.get(step, 0.0) + now_s - self._last_s, 3)
        self._last_s = now_s
