"""Time budgets and timing. Clocks are injected, so tests need not wait."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

_log = logging.getLogger(__name__)

Clock = Callable[[], float]


class OutOfTime(Exception):
    """The budget ended during work that can be stopped where it is."""


@dataclass
class Deadline:
    """When a command has to end."""

    budget_s: float | None = None  # from the start; None: no limit
    clock: Clock = time.monotonic
    is_ended: bool = False  # by Ctrl-C
    startup_s: float | None = None  # spent importing torch, if this process had to

    def __post_init__(self) -> None:
        self.started_s = self.clock()

    @property
    def spent_s(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started_s

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative after it, infinite without a budget, 0 once ended."""
        if self.is_ended:
            return 0.0
        return inf if self.budget_s is None else self.budget_s - self.spent_s

    def end(self) -> None:
        """End the budget now."""
        self.is_ended = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of the block, such as a download."""
        started_s = self.clock()
        try:
            yield
        finally:
            self.started_s += self.clock() - started_s

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Turn Ctrl-C into the end of the budget: the user gets what is finished.

        Raises:
            OutOfTime: the user pressed Ctrl-C.
        """
        try:
            yield
        except KeyboardInterrupt:
            self.end()
            raise OutOfTime from None


class Stopwatch:
    """Seconds per named step, in the order of the steps."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._last_s = clock()
        self.seconds: dict[str, float] = {}

    def lap(self, step: str) -> None:
        """Add the time since the last lap to ``step``."""
        now_s = self._clock()
        _log.debug("%s: %.3f s", step, now_s - self._last_s)
        self.seconds[step] = round(self.seconds.get(step, 0.0) + now_s - self._last_s, 3)
        self._last_s = now_s
