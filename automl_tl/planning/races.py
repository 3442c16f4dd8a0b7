"""The dearest rung: strategies that train run against each other for a part of their epochs, and only the better go on.

Successive halving (Jamieson and Talwalkar, arXiv 1502.07943) over checkpoints: what a race has trained, the fit takes over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Final

from automl_tl.errors import PluginError, TrainingError
from automl_tl.planning.cost import TrainingSeconds
from automl_tl.planning.decision import Arm
from automl_tl.planning.verdicts import Comparison, brier, compare, shrunk
from automl_tl.training import Bench, Trial
from automl_tl.values import Recipe

__all__ = ["Runner", "race", "seconds_of_race"]

FIRST_SHARE: Final = 1 / 3  # of the epochs, before the field is halved: eta 3 of successive halving


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


def seconds_of_race(runners: Sequence[Runner]) -> float:
    """At least: the first share of the epochs of all, the rest of the longest, and publishing it."""
    first_s = FIRST_SHARE * sum(runner.costs.trial_s for runner in runners)
    return first_s + max((1 - FIRST_SHARE) * runner.costs.trial_s + runner.costs.finish_s for runner in runners)


def race(runners: Sequence[Runner], probe: Arm, bench: Bench) -> list[Arm]:
    """Race ``runners`` against each other and the linear ``probe``; each arm comes back with what is known of it then.

    An arm falls out when after a third of its epochs it is behind the best by more than one standard error of the paired
    Brier scores, when the time that is left doesn't suffice for the rest, or when the fit would keep the probe instead.
    """
    race, going = _Race(bench), list(runners)
    if len(going) > 1:
        bench.story.say("race: " + ", ".join(runner.arm.strategy for runner in going))
        going = race.better_half(going)
    arms: dict[str, Arm] = {}
    for runner in going:
        if arms and bench.deadline.left_s < runner.costs.least_s:
            race.out[runner.arm.strategy] = "there was no time for it after the better ones"
        elif (trial := race.try_out(runner, runner.epochs)) is not None:
            verdict = compare(trial.trained, trial.probe, trial.labels)
            bench.story.say(
                f"{runner.arm.strategy} against the linear probe on {len(trial.labels)} validation images: {verdict.text}"
            )
            if trial.is_worse:
                race.out[runner.arm.strategy] = f"{verdict.text}, but the probe has the lower log-loss on the validation images"
                continue
            costs = replace(runner.costs, trial_s=0.0, refit_s=trial.kept_share * runner.costs.refit_s)
            arms[runner.arm.strategy] = _known(runner, verdict, probe, costs.within(bench.deadline.left_s))
    return [arms.get(runner.arm.strategy) or _given_up(runner.arm, race.out[runner.arm.strategy]) for runner in runners]


@dataclass
class _Race:
    """The trials so far, and why strategies are out, by name."""

    bench: Bench
    trials: dict[str, Trial] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)

    def better_half(self, runners: Sequence[Runner]) -> list[Runner]:
        tried = [(runner, self.try_out(runner, ceil(runner.epochs * FIRST_SHARE))) for runner in runners]
        done = [(runner, brier(trial.trained, trial.labels)) for runner, trial in tried if trial is not None]
        done.sort(key=lambda each: each[1].mean())
        stay = []
        for runner, losses in done:
            behind = losses - done[0][1]
            if float(behind.mean()) <= float(behind.std()) / len(behind) ** 0.5:
                stay.append(runner)
        stay = stay[: max(1, ceil(len(runners) / 2))]
        self.out |= {runner.arm.strategy: "fell behind in the race" for runner, _ in done if runner not in stay}
        return stay

    def try_out(self, runner: Runner, epochs: int) -> Trial | None:
        """The trial after so many epochs, or the last one if the time is over."""
        name = runner.arm.strategy
        if not self.bench.deadline.is_ended:
            try:
                trial = runner.run(epochs=epochs)
            except (TrainingError, PluginError) as error:
                self.bench.story.warn(f"{name} is out: {error}")
                self.out[name] = str(error)
                return None
            if trial is not None:
                self.trials[name] = trial
        if name not in self.trials:
            self.out[name] = "there was no time for an epoch"
        return self.trials.get(name)


def _known(runner: Runner, verdict: Comparison, probe: Arm, seconds: float) -> Arm:
    gain, sd = shrunk(verdict.difference, verdict.standard_error, runner.gain, runner.gain_sd)
    return replace(
        runner.arm,
        accuracy=min(max(probe.accuracy + gain, 0.0), 1.0),
        sd=(probe.sd**2 + sd**2) ** 0.5,
        source=f"trained on the training part: {verdict.text} against the linear probe; prior {100 * runner.gain:+.1f} points",
        seconds=seconds,
        why=f"{runner.arm.why}; {verdict.text} against the linear probe on validation images",
    )


def _given_up(arm: Arm, why: str) -> Arm:
    """An arm that fell behind, failed or had no time: it is chosen only if there is no other."""
    return replace(arm, source=why, why=why, given_up=why)
