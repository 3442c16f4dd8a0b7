"""Which strategies are worth training here, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from statistics import NormalDist
from typing import Final

from automl_tl.catalog import OfferedStrategy
from automl_tl.contracts import Expectation
from automl_tl.errors import PluginError
from automl_tl.percentages import percent
from automl_tl.planning.case import Case
from automl_tl.planning.cost import least_seconds_of_training, memory_mib, seconds_of_training
from automl_tl.planning.decision import Arm, time_short
from automl_tl.planning.limits import nothing_possible
from automl_tl.planning.probes import Probe
from automl_tl.planning.races import Runner, seconds_of_race
from automl_tl.planning.sparing import versions_of
from automl_tl.planning.standing import GAIN_PER_S, USUAL_GAIN
from automl_tl.planning.telling import plan_of
from automl_tl.planning.verdicts import EQUAL_WITHIN
from automl_tl.training import Trial, trial
from automl_tl.values import Estimate, Recipe

__all__ = ["runners_of", "seconds_to_train"]

WORTH_HAVING: Final = 0.01  # of accuracy: a strategy that can't bring a point is not trained
LIKELY: Final = 0.2  # the least probability of bringing it (planner notes, section 7)
MOST_OF_THE_ERRORS: Final = 0.5  # that moving an encoder can be hoped to take away (planner notes, section 2)
MAX_RUNNERS: Final = 3
FEWEST_TO_JUDGE: Final = 25  # validation images; with fewer the standard error of a race is above 8 points


def runners_of(case: Case, trained: Mapping[str, Recipe], leading: Arm, leader: Probe, *, must_run: bool) -> list[Runner]:
    """The strategies that are worth training, best value for time first.

    Raises:
        ImpossibleWishError: one ``must_run``, and none can.
    """
    situation = case.situation(leader.backbone.card, leader.num_blocks, leader)
    offers: list[Runner] = []
    dear: list[Runner] = []
    for strategy in (each for each in case.strategies if each.name in trained):
        expectation = strategy.expect(situation)
        reason = (
            None if case.is_asked_for else _not_judgeable(case) or _unlikely(expectation, leader) or _too_late(case, leader)
        )
        if reason is None or must_run:
            try:
                runner, objection = _affordable(case, strategy, trained[strategy.name], expectation, leading, leader)
            except PluginError as error:
                case.refused[f"{leader.name} with {strategy.name}"] = str(error)
                continue
            reason = reason or objection
            (offers if reason is None else dear).append(runner)
        if reason is not None:
            case.refused[f"{leader.name} with {strategy.name}"] = reason
    if must_run and not offers:
        offers = dear[:1]
        if not offers:
            raise nothing_possible(case.wishes, case.refused)
    offers.sort(key=lambda each: -_expected_improvement(each.gain, each.gain_sd) / each.arm.seconds)
    return offers if case.is_asked_for else _field(case, offers[:MAX_RUNNERS])


def seconds_to_train(case: Case, trained: Mapping[str, Recipe], leading: Arm, leader: Probe) -> float | None:
    """What the cheapest training takes that there is time for and that promises more than one more backbone, or ``None``."""
    situation = case.situation(leader.backbone.card, leader.num_blocks, leader)
    seconds = []
    for strategy in (each for each in case.strategies if each.name in trained):
        expectation = strategy.expect(situation)
        if _not_judgeable(case) or _unlikely(expectation, leader) or _too_late(case, leader):
            continue
        *_, (recipe, expected) = versions_of(trained[strategy.name], expectation)
        if expected.gain > USUAL_GAIN * (1 - leader.accuracy):
            with suppress(PluginError):  # told when it is to run
                seconds.append(_runner(case, strategy, recipe, expected, leading, leader).costs.least_s)
    least_s = min(seconds, default=inf)
    return least_s if least_s <= case.seconds_left else None


def _affordable(
    case: Case, strategy: OfferedStrategy, recipe: Recipe, expectation: Expectation, leading: Arm, leader: Probe
) -> tuple[Runner, str | None]:
    """The recipe, or what of it a budget has time for; with why even the cheapest version is too dear, or ``None``."""
    if case.is_asked_for:
        return _runner(case, strategy, recipe, expectation, leading, leader), None
    is_limited = case.wishes.budget_s is not None
    for version, expected in versions_of(recipe, expectation) if is_limited else [(recipe, expectation)]:
        runner = _runner(case, strategy, version, expected, leading, leader)
        reason = _too_long(case, runner)
        if reason is None:
            return runner, None
    _would_change(case, runner)
    return runner, reason


def _runner(
    case: Case, strategy: OfferedStrategy, recipe: Recipe, expectation: Expectation, leading: Arm, leader: Probe
) -> Runner:
    card, training = leader.backbone.card, case.lab.training_speed(leader.backbone)
    costs = seconds_of_training(
        recipe,
        leader.speed,
        training,
        case.work,
        feature_dim=card.feature_dim,
        publishing_s=case.lab.bench.publishing_s(leader.size_mib),
    )
    arm = replace(
        leading,
        strategy=strategy.name,
        accuracy=min(max(leading.accuracy + expectation.gain, 0.0), 1.0),
        sd=(leading.sd**2 + expectation.gain_sd**2) ** 0.5,
        source=f"{leading.source}, and what the strategy expects to gain",
        seconds=costs.within(case.seconds_left),
        memory_mib=memory_mib(recipe, training, card.num_parameters),
        why=expectation.why,
    )
    plan = plan_of(case, card, strategy, recipe, expected=Estimate(), reasons=(expectation.why,))

    def run(*, epochs: int) -> Trial | None:
        with leader.backbone.fence("was trained"):
            return trial(plan, leader.backbone, case.lab.classes, case.lab.images, case.lab.bench, epochs=epochs)

    return Runner(arm, recipe, expectation.gain, _bounded_sd(expectation, leader), costs, run)


def _field(case: Case, runners: Sequence[Runner]) -> list[Runner]:
    """The first, and of the others those for whose race there is time as well; without a budget, that promise a point more."""
    field = [*runners[:1]]
    for runner in runners[1:]:
        first, race_s = field[0], seconds_of_race([*field, runner])
        if case.wishes.budget_s is None and runner.gain - first.gain <= EQUAL_WITHIN:
            reason = f"promises no more than {first.arm.strategy}, for more time: without a budget there is no race"
        elif race_s > case.seconds_left:
            reason = f"a race against {first.arm.strategy} takes {time_short(race_s, case.seconds_left)}"
        else:
            field.append(runner)
            continue
        case.refused[f"{runner.arm.backbone} with {runner.arm.strategy}"] = reason
    return field


def _not_judgeable(case: Case) -> str | None:
    """Why training can't be judged on these images, or ``None``."""
    count = len(case.lab.images["validation"])
    return f"{count} validation images are too few to tell whether it gains" if count < FEWEST_TO_JUDGE else None


def _too_late(case: Case, leader: Probe) -> str | None:
    """Why there is no time for any training, so that nobody need time its steps, or ``None``."""
    least_s = least_seconds_of_training(leader.speed, case.work, publishing_s=case.lab.bench.publishing_s(leader.size_mib))
    return f"needs more than {time_short(least_s, case.seconds_left)}" if least_s > case.seconds_left else None


def _too_long(case: Case, runner: Runner) -> str | None:
    """Why a strategy is not tried for the time that it would take, or ``None``."""
    seconds = runner.arm.seconds
    if seconds > case.seconds_left:
        return f"needs about {time_short(seconds, case.seconds_left)}"
    if case.wishes.budget_s is None and _expected_improvement(runner.gain, runner.gain_sd) < GAIN_PER_S * seconds:
        return f"{100 * runner.gain:+.1f} points expected for {seconds / 60:.1f} minutes: without a budget too dear"
    return None


def _would_change(case: Case, runner: Runner) -> None:
    minutes = _minutes(runner.arm.seconds + case.lab.bench.deadline.spent_s)
    points = f"{100 * runner.gain:+.1f} ± {100 * runner.gain_sd:.1f} points expected"
    case.changes.append(f"with --budget {minutes}m {runner.arm.strategy} is tried: {points}")


def _unlikely(expectation: Expectation, leader: Probe) -> str | None:
    """Why a strategy isn't likely to bring a point, or ``None``."""
    if MOST_OF_THE_ERRORS * (1 - leader.accuracy) < WORTH_HAVING:
        return f"of {percent(1 - leader.accuracy)} errors not even a point can be hoped for"
    if NormalDist(expectation.gain, _bounded_sd(expectation, leader)).cdf(WORTH_HAVING) > 1 - LIKELY:
        return f"{100 * expectation.gain:+.1f} points expected, a point is unlikely"
    return None


def _bounded_sd(expectation: Expectation, leader: Probe) -> float:
    """Nobody can be surprised by more than the errors that there are."""
    return max(min(expectation.gain_sd, MOST_OF_THE_ERRORS * (1 - leader.accuracy) / 2), 1e-6)


def _expected_improvement(gain: float, sd: float) -> float:
    """Mean of what is gained if a loss can be turned down: Jones, Schonlau and Welch, 1998."""
    normal, z = NormalDist(), gain / max(sd, 1e-6)
    return gain * normal.cdf(z) + max(sd, 1e-6) * normal.pdf(z)


def _minutes(seconds: float) -> int:
    return max(1, -int(-1.2 * seconds // 60))
