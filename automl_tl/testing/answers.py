"""Checks on what a strategy answers. Nothing is trained here."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from pydantic import ValidationError

from automl_tl.contracts import Expectation, Recipe, Situation
from automl_tl.plugin_host.entries import cause
from automl_tl.plugin_host.isolation import check_blocks_exist
from automl_tl.testing.options import other_values
from automl_tl.testing.processes import answers_of_new_process
from automl_tl.testing.situations import every_depth, every_size, some
from automl_tl.testing.subjects import StrategySubject
from automl_tl.testing.verdicts import CheckFailed, Unreachable, require

__all__ = ["ANSWER_CHECKS"]

LONGEST_SUMMARY: Final = 120
LONGEST_WHY: Final = 300
LARGEST_GAIN, LARGEST_SD = 0.5, 0.5  # half of all images: no strategy turns 40% into more than 90%
MOST_EPOCHS: Final = 1_000  # from scratch on a hundred images takes some hundred
HIGHEST_RATE: Final = 10.0
LARGEST_BATCH: Final = 4_096
QUICK_ANSWER_S: Final = 0.05


def describes_itself(subject: StrategySubject) -> None:
    """Its class has a docstring and a summary of one line, which users read in lists and plans."""
    kind = type(subject.offered.strategy)
    summary = kind.summary
    fits = bool(summary.strip()) and "\n" not in summary and len(summary) <= LONGEST_SUMMARY
    require(fits, f"summary must be one line of 1 to {LONGEST_SUMMARY} characters, found {summary!r}")
    require(bool((kind.__dict__.get("__doc__") or "").strip()), f"the class {kind.__name__} has no docstring")


def options_survive_json(subject: StrategySubject) -> None:
    """Its options, written to a plan and read back, are the same options."""
    strategy = subject.offered.strategy
    try:
        again = type(strategy).model_validate_json(strategy.model_dump_json())
    except ValueError as error:
        raise CheckFailed(f"the options can't be written as JSON and read back: {cause(error)}") from error
    require(again == strategy, f"the options {strategy!r} came back as {again!r}")


def refuses_unknown_options(subject: StrategySubject) -> None:
    """A mistyped option is an error, never ignored."""
    kind = type(subject.offered.strategy)
    try:
        kind.model_validate({"no_such_option_exists": 1})
    except ValidationError:
        return
    raise CheckFailed("it takes the option 'no_such_option_exists' in silence; leave model_config as Strategy has it")


def recipe_is_valid_for_every_depth(subject: StrategySubject) -> None:
    """There is a valid recipe for networks of 1 to 30 blocks."""
    _each_recipe_is_valid(subject, every_depth())


def recipe_is_valid_for_every_size(subject: StrategySubject) -> None:
    """There is a valid recipe for 4 images and for a million, whether or not similarity and probe accuracy are known."""
    _each_recipe_is_valid(subject, every_size())


def _each_recipe_is_valid(subject: StrategySubject, situations: Iterable[Situation]) -> None:
    for situation in situations:
        try:
            answer, _ = subject.call(lambda strategy, given: strategy.recipe(given), situation)
            require(isinstance(answer, Recipe), f"expected a Recipe, found {type(answer).__name__}")
            assert isinstance(answer, Recipe)
            check_blocks_exist(Recipe.model_validate(answer.model_dump(warnings=False)), situation.num_blocks)
        except Unreachable:
            raise
        except Exception as error:
            raise CheckFailed(f"no valid recipe for {_told(situation)}: {cause(error)}") from error


def recipe_survives_json(subject: StrategySubject) -> None:
    """A recipe, saved in a plan and read back, is the same recipe."""
    for situation in some():
        recipe = subject.recipe(situation)
        require(Recipe.model_validate_json(recipe.model_dump_json()) == recipe, f"it changed on its way: {recipe!r}")


def cost_is_sane(subject: StrategySubject) -> None:
    """No recipe asks for more than 1000 epochs, a rate above 10 or a batch above 4096 images."""
    for situation in chain(every_depth(), every_size()):
        recipe = subject.recipe(situation)
        epochs = sum(phase.epochs for phase in recipe.phases)
        require(epochs <= MOST_EPOCHS, f"{epochs} epochs for {_told(situation)}, at most {MOST_EPOCHS} are sane")
        rates = [rate for phase in recipe.phases for rate in (phase.head_lr, phase.encoder_lr)]
        highest = max(rates, default=0.0)
        require(highest <= HIGHEST_RATE, f"a learning rate of {highest} for {_told(situation)}, at most {HIGHEST_RATE} is sane")
        text = f"batches of {recipe.batch_size} images for {_told(situation)}, at most {LARGEST_BATCH} are sane"
        require(recipe.batch_size <= LARGEST_BATCH, text)


def expectation_is_sane(subject: StrategySubject) -> None:
    """It expects a gain between -0.5 and 0.5 with a spread up to 0.5, and says why in a line."""
    for situation in chain(every_depth(), every_size()):
        try:
            answer, _ = subject.call(lambda strategy, given: strategy.expect(given), situation)
            require(isinstance(answer, Expectation), f"expected an Expectation, found {type(answer).__name__}")
            assert isinstance(answer, Expectation)
            expected = Expectation.model_validate(answer.model_dump(warnings=False))
        except Unreachable:
            raise
        except Exception as error:
            raise CheckFailed(f"no valid expectation for {_told(situation)}: {cause(error)}") from error
        require(abs(expected.gain) <= LARGEST_GAIN, f"a gain of {expected.gain} for {_told(situation)} is not credible")
        require(expected.gain_sd <= LARGEST_SD, f"a spread of {expected.gain_sd} for {_told(situation)} says nothing")
        why = expected.why
        fits = bool(why.strip()) and "\n" not in why and len(why) <= LONGEST_WHY
        require(fits, f"why must be one line of 1 to {LONGEST_WHY} characters, found {why!r} for {_told(situation)}")


def suits_somewhere(subject: StrategySubject) -> None:
    """There is at least one situation that it suits; else the planner never takes it."""
    suits = any(subject.expect(situation).suits for situation in chain(every_size(), every_depth()))
    require(suits, "it suits none of the situations from 4 to a million images; the planner would never choose it")


def answers_in_time(subject: StrategySubject) -> None:
    """An answer takes less than 0.05 seconds: the planner asks for many."""
    for name in ("recipe", "expect"):
        _ = subject.offered
        seconds = []
        for situation in some():
            started_s = time.perf_counter()
            try:
                subject.call(lambda strategy, given, name=name: getattr(strategy, name)(given), situation)  # type: ignore[misc]
            except Unreachable as error:
                raise CheckFailed(f"{name} gave {error.__cause__}; a strategy answers from the situation alone") from error
            except Exception:  # whether the answer is any good, others check
                continue
            seconds.append(time.perf_counter() - started_s)
        median_s = sorted(seconds)[len(seconds) // 2] if seconds else 0.0
        require(median_s <= QUICK_ANSWER_S, f"{name} takes {median_s:.2f} s (median), allowed are {QUICK_ANSWER_S} s")


def answers_repeat(subject: StrategySubject) -> None:
    """The same situation gives the same answer, whatever was asked in between."""
    situations = some()
    first = list(_answers(subject, situations))
    again = list(_answers(subject, reversed(situations)))[::-1]
    for situation, before, after in zip(situations, first, again, strict=True):
        require(before == after, f"asked twice about {_told(situation)}, it gave\n  {before}\nand\n  {after}")


def answers_repeat_in_a_new_process(subject: StrategySubject) -> None:
    """A new process, with another hash seed, gives the same answers."""
    situations = some()
    here = [(recipe.model_dump_json(), expected.model_dump_json()) for recipe, expected in _answers(subject, situations)]
    there = answers_of_new_process(subject.entry.point, situations)
    for situation, before, after in zip(situations, here, there, strict=True):
        require(before == after, f"about {_told(situation)} it says\n  {before}\nhere, and\n  {after}\nin a new process")


def leaves_what_it_was_given_alone(subject: StrategySubject) -> None:
    """Neither the situation nor its own options change when it answers."""
    strategy = subject.offered.strategy
    before = strategy.model_dump()
    for situation in some():
        for name in ("recipe", "expect"):
            try:
                _, given = subject.call(lambda kind, given, name=name: getattr(kind, name)(given), situation)  # type: ignore[misc]
            except Unreachable:
                raise
            except Exception as error:
                raise Unreachable("recipe_is_valid_for_every_depth", cause(error)) from error
            require(given == situation, f"{name} changed the situation it was given: {_told(situation)} became {_told(given)}")
    require(strategy.model_dump() == before, f"its options were {before} and became {strategy.model_dump()}")


def every_option_changes_something(subject: StrategySubject) -> None:
    """Each declared option, given another value, changes a recipe or an expectation somewhere."""
    idle = [option for option in type(subject.offered.strategy).model_fields if not _matters(subject, option)]
    require(not idle, f"no other value of {', '.join(idle)} changes any recipe or expectation: remove it, or make it work")


def _matters(subject: StrategySubject, option: str) -> bool:
    offered = subject.offered
    others = list(other_values(offered.strategy, option, subject.option_values.get(option, ())))
    if not others:
        raise CheckFailed(f"no other value for {option!r} is known: pass option_values={{{option!r}: [...]}}")
    for situation in chain(some(), every_size(), every_depth()):
        before = (subject.recipe(situation), subject.expect(situation))
        for other in others:
            changed = type(offered)(offered.plugin, other, offered.timeout)
            if (subject.recipe(situation, changed), subject.expect(situation, changed)) != before:
                return True
    return False


def _answers(subject: StrategySubject, situations: Iterable[Situation]) -> Iterator[tuple[Recipe, Expectation]]:
    for situation in situations:
        yield subject.recipe(situation), subject.expect(situation)


def _told(situation: Situation) -> str:
    known = situation.model_dump(exclude_none=True)
    return ", ".join(f"{name}={known[name]}" for name in ("num_images", "num_classes", "num_blocks"))


ANSWER_CHECKS = (
    describes_itself,
    options_survive_json,
    refuses_unknown_options,
    recipe_is_valid_for_every_depth,
    recipe_is_valid_for_every_size,
    recipe_survives_json,
    cost_is_sane,
    expectation_is_sane,
    suits_somewhere,
    answers_in_time,
    answers_repeat,
    answers_repeat_in_a_new_process,
    leaves_what_it_was_given_alone,
    every_option_changes_something,
)
