"""Successive halving, the most expensive stage: train each strategy for some of its epochs, and continue with few.

One round as in Jamieson and Talwalkar, arXiv 1502.07943, on checkpoints: the fit continues from what was trained here. Where
the validation images do not decide, the prior expectation does: strategies that train the same encoder end within 1 to
2 pp of each other, which a few dozen images cannot separate from chance (decision 41).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Final

from automl_tl.errors import PluginError, TrainingError
from automl_tl.planning.cost import TrainingSeconds
from automl_tl.planning.decision import Arm
from automl_tl.planning.verdicts import EQUAL_WITHIN, Comparison, compare, shrunk
from automl_tl.training import Trial, Workspace
from automl_tl.values import Recipe

__all__ = ["Runner", "seconds_of_halving", "successive_halving"]

FIRST_SHARE: Final = 1 / 3  # of the epochs, before some fall out: eta 3 of successive halving


@dataclass(frozen=True)
class Runner:
    """An arm that trains. ``gain`` over the probe is expected with ``gain_sd``; ``run(epochs=N)`` carries out so many."""

    arm: Arm
    recipe: Recipe
    gain: float
    gain_sd: float
    costs: TrainingSeconds
    run: Callable[..., Trial | None]  # epochs=N

    @property
    def epochs(self) -> int:
        """Of all phases."""
        return sum(phase.epochs for phase in self.recipe.phases)


def seconds_of_halving(runners: Sequence[Runner]) -> float:
    """At least: the first share of the epochs of all, the rest of the longest, and publishing it."""
    first_s = FIRST_SHARE * sum(runner.costs.trial_s for runner in runners)
    return first_s + max((1 - FIRST_SHARE) * runner.costs.trial_s + runner.costs.finish_s for runner in runners)


def successive_halving(runners: Sequence[Runner], probe: Arm, workspace: Workspace) -> list[Arm]:
    """Race ``runners``, best value for time first, against each other and the linear ``probe``; arms with what is known then.

    After a third of its epochs an arm goes on if it is the first, if it is decided better than the first, or if it promises a
    point more and isn't decided worse. It falls out as well when the time that is left doesn't suffice for the rest, or when
    the fit would keep the probe instead; if that leaves none, those that fell out before have their turn.
    """
    trials = _Trials(workspace)
    if len(runners) > 1:
        workspace.progress.info("comparing " + ", ".join(runner.arm.strategy for runner in runners))
        trials.first_round(runners)
    arms: dict[str, Arm] = {}
    first: _Judged | None = None
    for runner in trials.in_order(runners):
        if arms and runner.arm.strategy in trials.out:
            continue
        if arms and workspace.deadline.left_s < runner.costs.least_s:
            trials.out[runner.arm.strategy] = "no time left after the first strategy"
        elif (trial := trials.try_out(runner, runner.epochs)) is not None:
            verdict = compare(trial.trained, trial.probe, trial.labels)
            workspace.progress.info(
                f"{runner.arm.strategy} against the linear probe on {len(trial.labels)} validation images: {verdict.text}"
            )
            if trial.is_worse:
                trials.out[runner.arm.strategy] = f"{verdict.text}, but the linear probe has the lower validation log loss"
                continue
            costs = replace(runner.costs, trial_s=0.0, refit_s=trial.kept_share * runner.costs.refit_s)
            judged = _judged(runner, trial, verdict, first)
            first = first or judged
            trained_s = trials.trained_s[runner.arm.strategy]
            arms[runner.arm.strategy] = _known(judged, probe, costs.within(workspace.deadline.left_s), trained_s)
    return [arms.get(runner.arm.strategy) or _given_up(runner.arm, trials.out[runner.arm.strategy]) for runner in runners]


@dataclass
class _Trials:
    """The trials so far, with their seconds, and why strategies are out, by name."""

    workspace: Workspace
    trials: dict[str, Trial] = field(default_factory=dict)
    trained_s: dict[str, float] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)

    def in_order(self, runners: Sequence[Runner]) -> list[Runner]:
        """Those that go on, then those that fell out but could be tried."""
        sound = [runner for runner in runners if runner.arm.strategy not in self.out or runner.arm.strategy in self.trials]
        return sorted(sound, key=lambda runner: runner.arm.strategy in self.out)

    def first_round(self, runners: Sequence[Runner]) -> None:
        """A third of the epochs of all."""
        first: Runner | None = None
        for runner in runners:
            trial = self.try_out(runner, ceil(runner.epochs * FIRST_SHARE))
            if trial is None:
                continue
            if first is None:
                first = runner
                continue
            found = compare(trial.trained, self.trials[first.arm.strategy].trained, trial.labels)
            promises_more = runner.gain - first.gain > EQUAL_WITHIN
            if not found.is_better and (found.is_worse or not promises_more):
                self.out[runner.arm.strategy] = f"{found.text} against {first.arm.strategy} after a third of the epochs"

    def try_out(self, runner: Runner, epochs: int) -> Trial | None:
        """The trial after so many epochs, or the last one if the time is over."""
        name, began_s = runner.arm.strategy, self.workspace.deadline.spent_s
        if not self.workspace.deadline.is_ended:
            try:
                trial = runner.run(epochs=epochs)
            except (TrainingError, PluginError) as error:
                self.workspace.progress.warn(f"Dropping {name}: {error}")
                self.out[name] = str(error)
                return None
            if trial is not None:
                self.trials[name] = trial
                self.trained_s[name] = self.trained_s.get(name, 0.0) + self.workspace.deadline.spent_s - began_s
        if name not in self.trials:
            self.out[name] = "no time for one epoch"
        return self.trials.get(name)


@dataclass(frozen=True)
class _Judged:
    """A trial in full, and what it is taken to gain over the probe, with the standard deviation of that."""

    runner: Runner
    trial: Trial
    verdict: Comparison  # against the probe
    gain: float
    sd: float


def _judged(runner: Runner, trial: Trial, verdict: Comparison, first: _Judged | None) -> _Judged:
    """What was measured against the probe, weighed against what was expected; of a later one, against the ``first``."""
    gain, sd = shrunk(verdict.difference, verdict.standard_error, runner.gain, runner.gain_sd)
    if first is not None:
        found, more = compare(trial.trained, first.trial.trained, trial.labels), runner.gain - first.runner.gain
        if found.word == "decided":
            more, _ = shrunk(found.difference, found.standard_error, more, runner.gain_sd)
        gain = first.gain + more
    return _Judged(runner, trial, verdict, gain, sd)


def _known(judged: _Judged, probe: Arm, seconds: float, trained_s: float) -> Arm:
    runner, verdict = judged.runner, judged.verdict
    return replace(
        runner.arm,
        accuracy=min(max(probe.accuracy + judged.gain, 0.0), 1.0),
        sd=(probe.sd**2 + judged.sd**2) ** 0.5,
        source=f"trained on the training split: {verdict.text} against the linear probe; prior {100 * runner.gain:+.1f} pp",
        seconds=seconds,
        foreseen_s=runner.arm.seconds,
        trained_s=trained_s,
        why=f"{runner.arm.why}; {verdict.text} against the linear probe on validation images",
    )


def _given_up(arm: Arm, why: str) -> Arm:
    """An arm that fell behind, failed or had no time: it is chosen only if there is no other."""
    return replace(arm, source=why, why=why, given_up=why)
