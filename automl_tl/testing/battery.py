"""A battery of named checks on one plugin: runs them, keeps what came out, says whether enough of them ran.

A green run that hides that one of 47 checks ran is worse than a red one (scikit-learn #33003). So a battery knows how many
checks the kit declares for its kind of plugin, and its report is only good if every one of them ran or was waived with a
reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Final, Literal, TypeVar, overload
from unittest import SkipTest

from automl_tl.testing.verdicts import CheckFailed, NotApplicable, Unreachable
from automl_tl.values import Value

__all__ = ["Battery", "BoundCheck", "Outcome", "Report", "bind", "promise_of"]

Subject = TypeVar("Subject")
State = Literal["passed", "failed", "waived", "not_applicable", "not_run"]
SPOKEN: Final[Mapping[State, str]] = {
    "failed": "failed",
    "not_run": "could not run",
    "waived": "waived",
    "not_applicable": "not applicable",
}
EXCUSED: Final[tuple[State, ...]] = ("waived", "not_applicable")
SHORTEST_REASON: Final = 10  # characters; "todo" is no reason


class Outcome(Value):
    """What came out of one check."""

    check: str
    promise: str
    state: State
    why: str = ""
    seconds: float = 0.0


class Report(Value):
    """What came out of all of them."""

    subject: str
    num_declared: int
    outcomes: tuple[Outcome, ...]

    def only(self, *states: State) -> tuple[Outcome, ...]:
        """The outcomes in these states."""
        return tuple(outcome for outcome in self.outcomes if outcome.state in states)

    @property
    def num_ran(self) -> int:
        """Checks that ran to an end, good or bad."""
        return len(self.only("passed", "failed"))

    @property
    def is_good(self) -> bool:
        """No check failed, and each declared one ran, was waived or is not applicable."""
        return len(self.only("passed", "waived", "not_applicable")) == self.num_declared == len(self.outcomes)

    @property
    def summary(self) -> str:
        """``ran 24 of 26, 2 failed: ...; 1 waived: ... because ...``."""
        parts = [f"ran {self.num_ran} of {self.num_declared}"]
        for state in SPOKEN:
            if found := self.only(state):
                parts.append(f"{len(found)} {SPOKEN[state]}: {_listed(found, with_reasons=state in EXCUSED)}")
        missing = self.num_declared - len(self.outcomes)
        if missing:
            parts.append(f"{missing} declared but missing: the kit is not whole")
        return f"{self.subject}: {'; '.join(parts)}"

    def require(self) -> None:
        """Raise ``CheckFailed`` unless the report is good."""
        if not self.is_good:
            raise CheckFailed(self.summary)


class BoundCheck:
    """One check on one plugin; call it to run it. It runs once, however often it is called."""

    def __init__(self, name: str, promise: str, run: Callable[[], None], waiver: str | None) -> None:
        self.name, self.promise = name, promise
        self._run, self._waiver = run, waiver
        self._outcome: Outcome | None = None

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> None:
        """Run the check.

        Raises:
            CheckFailed: the plugin breaks the promise, or the check could not be reached.
            SkipTest: waived or not applicable; the text says why.
        """
        outcome = self.outcome
        if outcome.state in EXCUSED:
            raise SkipTest(f"{outcome.state}: {outcome.why}")
        if outcome.state != "passed":
            raise CheckFailed(f"{self.name}: {outcome.why}\nPromised: {self.promise}")

    @property
    def outcome(self) -> Outcome:
        """What came out."""
        if self._outcome is None:
            started_s = time.perf_counter()
            state, why = ("waived", self._waiver) if self._waiver else self._verdict()
            seconds = round(time.perf_counter() - started_s, 3)
            self._outcome = Outcome(check=self.name, promise=self.promise, state=state, why=why, seconds=seconds)
        return self._outcome

    def _verdict(self) -> tuple[State, str]:
        try:
            self._run()
        except NotApplicable as error:
            return "not_applicable", str(error)
        except Unreachable as error:
            return "not_run", str(error)
        except CheckFailed as error:
            return "failed", str(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin that raises pytest's Skipped must not look like a waiver
            return "failed", f"{type(error).__name__}: {error}"
        return "passed", ""


class Battery(Sequence[BoundCheck]):
    """All checks on one plugin, for ``pytest.mark.parametrize("check", battery, ids=str)``."""

    def __init__(self, title: str, checks: Sequence[BoundCheck], *, num_declared: int) -> None:
        self.title, self.num_declared = title, num_declared
        self._checks = tuple(checks)

    @overload
    def __getitem__(self, index: int) -> BoundCheck: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[BoundCheck]: ...
    def __getitem__(self, index: int | slice) -> BoundCheck | Sequence[BoundCheck]:
        return self._checks[index]

    def __len__(self) -> int:
        return len(self._checks)

    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes, one by one as the checks run."""
        for check in self._checks:
            yield check.outcome

    def report(self) -> Report:
        """What came out; checks that have not run yet run now."""
        return Report(subject=self.title, num_declared=self.num_declared, outcomes=tuple(self.outcomes()))


def bind(checks: Sequence[Callable[[Subject], None]], subject: Subject, waivers: Mapping[str, str]) -> Sequence[BoundCheck]:
    """Each of ``checks`` on ``subject``, under the name of its function; its promise is the docstring's first line.

    Raises:
        ValueError: a waiver names no check, or gives no reason.
    """
    _check_waivers(waivers, [check.__name__ for check in checks])
    return [
        BoundCheck(check.__name__, promise_of(check), partial(check, subject), waivers.get(check.__name__)) for check in checks
    ]


def promise_of(check: Callable[..., None]) -> str:
    """What a check checks, in a line."""
    return (check.__doc__ or "").strip().partition("\n")[0]


def _listed(outcomes: Sequence[Outcome], *, with_reasons: bool) -> str:
    """Names of checks; those with the same reason stand together in front of it."""
    if not with_reasons:
        return ", ".join(outcome.check for outcome in outcomes)
    by_reason: dict[str, list[str]] = {}
    for outcome in outcomes:
        by_reason.setdefault(outcome.why, []).append(outcome.check)
    return ", ".join(f"{', '.join(checks)} because {reason}" for reason, checks in by_reason.items())


def _check_waivers(waivers: Mapping[str, str], names: Sequence[str]) -> None:
    problems = []
    for name, reason in waivers.items():
        if name not in names:
            near = get_close_matches(name, names, n=1)
            problems.append(f"no check is called {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        elif len(reason.strip()) < SHORTEST_REASON:
            problems.append(f"the waiver of {name!r} needs a reason in words, found {reason!r}")
    if problems:
        raise ValueError(f"These waivers can't stand: {'; '.join(problems)}.")
