"""Decide which strategies are worth training, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import hypot, inf, sqrt
from statistics import NormalDist
from typing import Final

from automl_tl.contracts import Expectation, Situation
from automl_tl.errors import PluginError
from automl_tl.planning.case import GAIN_OF_BUDGET, Case
from automl_tl.planning.cost import least_seconds_of_training, memory_mib, seconds_of_training
from automl_tl.planning.decision import Arm, time_short
from automl_tl.planning.explain import plan_of
from automl_tl.planning.halving import Runner, seconds_of_halving
from automl_tl.planning.limits import nothing_possible
from automl_tl.planning.probes import Probe
from automl_tl.planning.standing import USUAL_GAIN
from automl_tl.planning.variants import recipe_variants
from automl_tl.planning.verdicts import EQUAL_WITHIN
from automl_tl.plugin_host import LoadedStrategy
from automl_tl.training import Trial, trial
from automl_tl.values import Estimate, Recipe

__all__ = ["Learner", "is_worth_training", "runners_of", "seconds_to_train"]

MOST_OF_THE_ERRORS: Final = 0.5  # that moving an encoder can be hoped to take away (planner notes, section 2)
MAX_RUNNERS: Final = 3
FEWEST_TO_JUDGE: Final = 25  # validation images; with fewer the standard error of a race is above 8 points


@dataclass(frozen=True)
class Learner:
    """The backbone that strategies train: how it stands and its probe, beside the ``best`` before training."""

    arm: Arm
    probe: Probe
    best: Arm
    num_validation: int  # images that a trial is judged by
    why: str = ""  # this one, where another was ahead

    @property
    def behind(self) -> float:
        """By how much accuracy."""
        return max(self.best.accuracy - self.arm.accuracy, 0.0)

    def value(self, runner: Runner) -> float:
        """Improvement to be expected for each second."""
        return self.improvement(runner.gain, runner.gain_sd) / runner.arm.seconds

    def needs_s(self, runner: Runner) -> float:
        """To try it, and then to publish either it or the best that there was."""
        return max(runner.arm.seconds, runner.costs.trial_s + self.best.seconds)

    def race_s(self, runners: Sequence[Runner]) -> float:
        """To race them, and then to publish the winner or the best that there was."""
        spare_s = self.best.seconds - min(runner.costs.finish_s for runner in runners)
        return seconds_of_halving(runners) + max(spare_s, 0.0)

    def situation(self, case: Case) -> Situation:
        """Return what a strategy may know."""
        return case.situation(self.probe.backbone.card, self.probe.num_blocks, self.probe)

    def gain_sd(self, expectation: Expectation) -> float:
        """Prior standard deviation of the gain, capped by the probe's error rate."""
        return max(min(expectation.gain_sd, MOST_OF_THE_ERRORS * (1 - self.probe.accuracy) / 2), 1e-6)

    def improvement(self, gain: float, sd: float) -> float:
        """Over the best there is, as a loss can be turned down, as far as the validation images tell it from a gain.

        Expected improvement of Jones, Schonlau and Welch, 1998, of what will be known after the trial: its mean varies by
        ``sd**2 / sqrt(sd**2 + e**2)`` for a trial with a standard error of ``e`` (Raiffa and Schlaifer, 1961).
        """
        normal, more = NormalDist(), gain - self.behind
        known_sd = max(sd**2 / hypot(sd, self._trial_error), 1e-6)
        return more * normal.cdf(more / known_sd) + known_sd * normal.pdf(more / known_sd)

    @property
    def _trial_error(self) -> float:
        """Standard error of a trial's gain, if it disagrees with the probe on as many images as the probe has wrong."""
        count = max(self.num_validation, 1)
        return sqrt(max(1 - self.probe.accuracy, 1 / count) / count)


def runners_of(case: Case, trained: Mapping[str, Recipe], learner: Learner, *, must_run: bool) -> list[Runner]:
    """The strategies that are worth training, best value for time first.

    Raises:
        UnsatisfiableConstraintsError: one ``must_run``, and none can.
    """
    offers: list[Runner] = []
    expensive: list[tuple[Runner, str]] = []
    for strategy in (each for each in case.strategies if each.name in trained):
        runner, reason = _considered(case, strategy, trained[strategy.name], learner, must_run=must_run)
        if runner is None:
            case.reject_strategy(learner.arm.backbone, strategy.name, str(reason))
        elif reason is None:
            offers.append(runner)
        else:
            expensive.append((runner, reason))
    offers.sort(key=learner.value, reverse=True)
    expensive.sort(key=lambda each: learner.value(each[0]), reverse=True)
    if must_run and not offers:
        if not expensive:
            raise nothing_possible(case.constraints, case.reasons)
        offers = [expensive.pop(0)[0]]
    for runner, reason in expensive:
        case.reject_strategy(runner.arm.backbone, runner.arm.strategy, reason, runner.arm.estimate)
    return offers if case.is_asked_for else _field(case, learner, offers)


def _considered(
    case: Case, strategy: LoadedStrategy, recipe: Recipe, learner: Learner, *, must_run: bool
) -> tuple[Runner | None, str | None]:
    """A runner, absent where there is no need of one or none can be made; and why it isn't worth training, or ``None``."""
    expectation = strategy.expect(learner.situation(case))
    reason = None if case.is_asked_for else _too_few_to_judge(case) or _out_of_reach(case, learner, expectation)
    if reason is not None and not must_run:
        return None, reason
    try:
        runner, objection = _affordable(case, strategy, recipe, expectation, learner)
    except PluginError as error:
        return None, str(error)
    if reason is None and objection is not None:
        _would_change(case, learner, runner)
    return runner, reason or objection


def is_worth_training(case: Case, trained: Mapping[str, Recipe], learner: Learner) -> bool:
    """Whether there is time for one of the strategies with nothing spared, and it is worth it."""
    situation = learner.situation(case)
    for strategy in (each for each in case.strategies if each.name in trained):
        expectation = strategy.expect(situation)
        if not case.is_asked_for and (_too_few_to_judge(case) or _out_of_reach(case, learner, expectation)):
            continue
        with suppress(PluginError):  # reported when it runs
            runner = _runner(case, strategy, trained[strategy.name], expectation, learner)
            fits = learner.needs_s(runner) <= case.seconds_left
            if fits and (case.is_asked_for or not _not_worth(case, learner, runner.gain, runner.gain_sd, runner.arm.seconds)):
                return True
    return False


def seconds_to_train(case: Case, trained: Mapping[str, Recipe], learner: Learner) -> float | None:
    """What the cheapest training takes that there is time for and that promises more than one more backbone, or ``None``."""
    situation = learner.situation(case)
    seconds = []
    for strategy in (each for each in case.strategies if each.name in trained):
        expectation = strategy.expect(situation)
        if _too_few_to_judge(case) or _out_of_reach(case, learner, expectation):
            continue
        *_, (recipe, expected) = recipe_variants(trained[strategy.name], expectation)
        if expected.gain > USUAL_GAIN * (1 - learner.probe.accuracy):
            with suppress(PluginError):  # reported when it runs
                seconds.append(_runner(case, strategy, recipe, expected, learner).costs.least_s)
    least_s = min(seconds, default=inf)
    return least_s if least_s <= case.seconds_left else None


def _affordable(
    case: Case, strategy: LoadedStrategy, recipe: Recipe, expectation: Expectation, learner: Learner
) -> tuple[Runner, str | None]:
    """The recipe, or what of it a budget has time for; with why it is out, or ``None``."""
    if case.is_asked_for:
        return _runner(case, strategy, recipe, expectation, learner), None
    is_limited = case.constraints.budget_s is not None
    for version, expected in recipe_variants(recipe, expectation) if is_limited else [(recipe, expectation)]:
        runner = _runner(case, strategy, version, expected, learner)
        if learner.needs_s(runner) <= case.seconds_left:
            return runner, _not_worth(case, learner, runner.gain, runner.gain_sd, runner.arm.seconds)
    return runner, f"needs about {time_short(learner.needs_s(runner), case.seconds_left)}"


def _runner(case: Case, strategy: LoadedStrategy, recipe: Recipe, expectation: Expectation, learner: Learner) -> Runner:
    card, training = learner.probe.backbone.card, case.lab.training_speed(learner.probe.backbone)
    costs = seconds_of_training(
        recipe,
        learner.probe.speed,
        training,
        case.work,
        feature_dim=card.feature_dim,
        publishing_s=case.lab.workspace.publishing_s(learner.probe.size_mib),
    )
    arm = replace(
        learner.arm,
        strategy=strategy.name,
        accuracy=min(max(learner.arm.accuracy + expectation.gain, 0.0), 1.0),
        sd=(learner.arm.sd**2 + expectation.gain_sd**2) ** 0.5,
        source=f"{learner.arm.source}, plus the strategy's expected gain",
        seconds=costs.within(case.seconds_left),
        memory_mib=memory_mib(recipe, training, card.num_parameters),
        why=expectation.why + learner.why,
    )
    plan = plan_of(case, card, strategy, recipe, expected=Estimate(), reasons=(expectation.why,))

    def run(*, epochs: int) -> Trial | None:
        with learner.probe.backbone.error_boundary("was trained"):
            return trial(plan, learner.probe.backbone, case.lab.classes, case.lab.images, case.lab.workspace, epochs=epochs)

    return Runner(arm, recipe, expectation.gain, learner.gain_sd(expectation), costs, run)


def _field(case: Case, learner: Learner, runners: Sequence[Runner]) -> list[Runner]:
    """The first, and of the next those for whose race there is time as well; without a budget, that promise a point more."""
    field = [*runners[:1]]
    for place, runner in enumerate(runners[1:], start=1):
        first, race_s = field[0], learner.race_s([*field, runner])
        if place >= MAX_RUNNERS:
            reason = f"{MAX_RUNNERS} other strategies promise more per second"
        elif case.constraints.budget_s is None and runner.gain - first.gain <= EQUAL_WITHIN:
            reason = f"promises no more than {first.arm.strategy} and takes longer; without a budget it is not compared"
        elif race_s > case.seconds_left:
            reason = f"comparing it with {first.arm.strategy} needs {time_short(race_s, case.seconds_left)}"
        else:
            field.append(runner)
            continue
        case.reject_strategy(runner.arm.backbone, runner.arm.strategy, reason, runner.arm.estimate)
    return field


def _too_few_to_judge(case: Case) -> str | None:
    """Why training can't be judged on these images, or ``None``."""
    count = len(case.lab.images["validation"])
    return f"{count} validation images are too few to measure a gain" if count < FEWEST_TO_JUDGE else None


def _out_of_reach(case: Case, learner: Learner, expectation: Expectation) -> str | None:
    """Return why even the shortest training is not worth the expected gain, before timing its steps, or ``None``."""
    publishing_s = case.lab.workspace.publishing_s(learner.probe.size_mib)
    least_s = least_seconds_of_training(learner.probe.speed, case.work, publishing_s=publishing_s)
    if least_s > case.seconds_left:
        return f"needs more than {time_short(least_s, case.seconds_left)}"
    return _not_worth(case, learner, expectation.gain, learner.gain_sd(expectation), least_s, at_least="more than ")


def _not_worth(case: Case, learner: Learner, gain: float, sd: float, seconds: float, *, at_least: str = "") -> str | None:
    """Why what a strategy is expected to gain isn't worth the seconds, or ``None``."""
    if learner.improvement(gain, sd) < case.gain_per_s * seconds:
        return case.too_expensive(gain - learner.behind, seconds, at_least=at_least)
    return None


def _would_change(case: Case, learner: Learner, runner: Runner) -> None:
    worth_s = runner.arm.seconds * GAIN_OF_BUDGET / learner.improvement(runner.gain, runner.gain_sd)
    minutes = _minutes(max(worth_s, runner.arm.seconds + case.lab.workspace.deadline.spent_s))
    gain = f"expected gain {100 * runner.gain:+.1f} ± {100 * runner.gain_sd:.1f} pp"
    case.changes.append(f"with --budget {minutes}m, {runner.arm.strategy} is tried: {gain}")


def _minutes(seconds: float) -> int:
    return max(1, -int(-1.2 * seconds // 60))
