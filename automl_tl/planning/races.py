"""The dearest rung: strategies that train run against each other for a part of their epochs, and only the better go on.

Successive halving (Jamieson and Talwalkar, arXiv 1502.07943) over checkpoints: what a race has trained, the fit takes over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from automl_tl.errors import TrainingError
from automl_tl.planning.decision import Arm
from automl_tl.planning.verdicts import Comparison, brier, compare, shrunk
from automl_tl.story import Story
from automl_tl.training import Bench, Trial
from automl_tl.values import Recipe

__all__ = ["Runner", "race"]

FIRST_SHARE: Final = 1 / 3  # of the epochs, before the field is halved: eta 3 of successive halving


@dataclass(frozen=True)
class Runner:
    """An arm that trains. ``gain`` over the probe is expected with ``gain_sd``; ``run(epochs=N)`` carries out so many."""

    arm: Arm
    recipe: Recipe
    gain: float
    gain_sd: float
    trial_s: float
    run: Callable[..., Trial | None]  # epochs=N

    @property
    def epochs(self) -> int:
        """Of all phases."""
        return sum(phase.epochs for phase in self.recipe.phases)


def race(runners: Sequence[Runner], probe: Arm, bench: Bench) -> list[Arm]:
    """Race ``runners`` against each other and the linear ``probe``; each arm comes back with what is known of it then.

    An arm falls out when after a third of its epochs it is behind the best by more than one standard error of the paired
    Brier scores, or when the time that is left doesn't suffice for the rest.
    """
    story, field = bench.story, list(runners)
    if len(field) > 1:
        story.say("race: " + ", ".join(runner.arm.strategy for runner in field))
        field = _better_half(field, story)
    arms: dict[str, Arm] = {}
    for runner in field:
        if arms and bench.deadline.left_s < runner.arm.seconds:
            continue
        if (trial := _tried(runner, runner.epochs, story)) is not None:
            verdict = compare(trial.trained, trial.probe, trial.labels)
            story.say(
                f"{runner.arm.strategy} against the linear probe on {len(trial.labels)} validation images: {verdict.text}"
            )
            arms[runner.arm.strategy] = _known(runner, verdict, probe)
    return [arms.get(runner.arm.strategy, _given_up(runner.arm)) for runner in runners]


def _better_half(field: Sequence[Runner], story: Story) -> list[Runner]:
    trials = [(runner, _tried(runner, ceil(runner.epochs * FIRST_SHARE), story)) for runner in field]
    done = [(runner, trial, brier(trial.trained, trial.labels)) for runner, trial in trials if trial is not None]
    if not done:
        return []
    _, best_trial, best_losses = min(done, key=lambda each: each[2].mean())
    stay = []
    for runner, _, losses in sorted(done, key=lambda each: each[2].mean()):
        behind = losses - best_losses
        if float(behind.mean()) <= float(behind.std()) / len(best_trial.labels) ** 0.5:
            stay.append(runner)
    return stay[: max(1, ceil(len(field) / 2))]


def _tried(runner: Runner, epochs: int, story: Story) -> Trial | None:
    try:
        return runner.run(epochs=epochs)
    except TrainingError as error:
        story.warn(f"{runner.arm.strategy} is out: {error}")
        return None


def _known(runner: Runner, verdict: Comparison, probe: Arm) -> Arm:
    gain, sd = shrunk(verdict.difference, verdict.standard_error, runner.gain, runner.gain_sd)
    return replace(
        runner.arm,
        accuracy=min(max(probe.accuracy + gain, 0.0), 1.0),
        sd=(probe.sd**2 + sd**2) ** 0.5,
        source=f"trained on the training part: {verdict.text} against the linear probe; prior {100 * runner.gain:+.1f} points",
        seconds=max(runner.arm.seconds - runner.trial_s, 0.0),
        why=f"{runner.arm.why}; {verdict.text} against the linear probe on validation images",
    )


def _given_up(arm: Arm) -> Arm:
    """An arm that fell behind or had no time: it can't be chosen any more."""
    return replace(arm, accuracy=0.0, source="fell behind in the race", why="fell behind in the race")
