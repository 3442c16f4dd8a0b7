"""Checks for strategies: valid, repeatable answers in every situation, and a recipe that trains."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Literal, get_args, get_origin

from pydantic import ValidationError

from automl_tl.contracts import Recipe, Situation, Strategy
from automl_tl.testing.plugin_under_test import StrategyUnderTest, describe, lines_printed_by
from automl_tl.testing.toy_task import CLASSES

MAX_SUMMARY, MAX_WHY = 120, 300  # characters
MAX_EPOCHS: Final = 1_000  # from scratch on a hundred images takes some hundred
MAX_RATE: Final = 10.0
MAX_BATCH: Final = 4_096
MAX_GAIN, MAX_GAIN_SD = 0.5, 0.5
MAX_ANSWER_S: Final = 0.05
# 55% of 60 images: random guessing among three classes gets there once in 3,000 times (binomial).
MIN_ACCURACY: Final = 0.55

# (images, classes, smallest class, largest class / smallest class): from four images to ImageNet
DATASETS: Final = (
    (4, 2, 2, 1.0),
    (30, 3, 1, 28.0),
    (96, 3, 32, 1.0),
    (500, 100, 5, 1.0),
    (3_000, 10, 20, 60.0),
    (20_000, 37, 400, 1.4),
    (1_281_167, 1_000, 732, 1.8),
)
# (similarity, probe accuracy)
MEASUREMENTS: Final = ((None, None), (0.05, 0.3), (0.5, 0.8), (1.0, 1.0), (0.0, 0.0))
OPTION_VALUES: Final = (True, False, None, 0, 1, 2, 3, 10, 0.1, 0.25, 0.5, 0.75, (), (1,), (1, 2), (0.5,))


def _situations() -> Iterator[Situation]:
    """Yield every network depth from 1 to 30, and every dataset with and without measurements."""
    cases = [(dataset, depth, None, None) for depth in range(1, 31) for dataset in (DATASETS[0], DATASETS[2], DATASETS[5])]
    cases += [(dataset, depth, *measured) for dataset in DATASETS for measured in MEASUREMENTS for depth in (1, 5, 12)]
    for (num_images, num_classes, smallest, imbalance), num_blocks, similarity, probe_accuracy in cases:
        yield Situation(
            num_images=num_images,
            num_classes=num_classes,
            min_images_per_class=smallest,
            imbalance=imbalance,
            num_blocks=num_blocks,
            feature_dim=1280,
            image_side_px=224,
            similarity=similarity,
            probe_accuracy=probe_accuracy,
        )


SITUATIONS: Final = tuple(_situations())
SAMPLE: Final = SITUATIONS[::15]  # for checks that ask several times
ANSWER_SCRIPT: Final = """
import sys
from importlib.metadata import EntryPoint
from automl_tl.testing.strategy_checks import SAMPLE
strategy = EntryPoint("plugin", sys.argv[1], "plugins").load()()
answers = [(strategy.recipe(each).model_dump_json(), strategy.expect(each).model_dump_json()) for each in SAMPLE]
print("", *answers, sep="\\n")
"""


def check_summary(plugin: StrategyUnderTest) -> None:
    """The summary, which users read in lists and plans, is one line of at most 120 characters."""
    summary = plugin.strategy.strategy.summary
    fits = bool(summary.strip()) and "\n" not in summary and len(summary) <= MAX_SUMMARY
    assert fits, f"summary must be one line of 1 to {MAX_SUMMARY} characters, found {summary!r}"


def check_options(plugin: StrategyUnderTest) -> None:
    """Options survive JSON, as in a saved plan, and unknown options are rejected."""
    strategy = plugin.strategy.strategy
    copy = type(strategy).model_validate_json(strategy.model_dump_json())
    assert copy == strategy, f"the options {strategy!r} became {copy!r} in JSON"
    try:
        type(strategy).model_validate({"no_such_option": 1})
    except ValidationError:
        return
    raise AssertionError("the unknown option 'no_such_option' is accepted; leave model_config as Strategy defines it")


def check_every_option_has_an_effect(plugin: StrategyUnderTest) -> None:
    """Each option, given another value, changes a recipe or an expectation in some situation."""
    strategy = plugin.strategy.strategy
    for option in type(strategy).model_fields:
        variants = list(_variants(strategy, option))
        has_effect = not variants or any(
            variant.recipe(situation) != strategy.recipe(situation) or variant.expect(situation) != strategy.expect(situation)
            for situation in SITUATIONS
            for variant in variants
        )
        assert has_effect, f"no other value of {option!r} changes a recipe or an expectation: remove the option or use it"


def _variants(strategy: Strategy, option: str) -> Iterator[Strategy]:
    """Yield the strategy with other valid values of ``option``, as far as its type suggests any."""
    current, annotation = getattr(strategy, option), type(strategy).model_fields[option].annotation
    literals = [
        value for kind in (annotation, *get_args(annotation)) if get_origin(kind) is Literal for value in get_args(kind)
    ]
    multiples = [current * 2, current * 5, current / 10] if type(current) in (int, float) else []
    for value in (*literals, *multiples, *OPTION_VALUES):
        try:
            variant = type(strategy)(**{**dict(strategy), option: value})
        except ValidationError:
            continue
        if variant != strategy:
            yield variant


def check_recipe(plugin: StrategyUnderTest) -> None:
    """Recipes for 1 to 30 blocks and 4 to a million images are valid, reasonable in cost, and survive JSON."""
    for situation in SITUATIONS:
        recipe = plugin.recipe(situation)
        assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe, f"the recipe changes in JSON: {recipe!r}"
        where, epochs = describe(situation), sum(phase.epochs for phase in recipe.phases)
        assert epochs <= MAX_EPOCHS, f"{epochs} epochs for {where}, at most {MAX_EPOCHS} are reasonable"
        rate = max((max(phase.head_lr, phase.encoder_lr) for phase in recipe.phases), default=0.0)
        assert rate <= MAX_RATE, f"a learning rate of {rate} for {where}, at most {MAX_RATE} is reasonable"
        assert recipe.batch_size <= MAX_BATCH, (
            f"a batch size of {recipe.batch_size} for {where}, at most {MAX_BATCH} is reasonable"
        )


def check_expectation(plugin: StrategyUnderTest) -> None:
    """Expectations are valid and credible, explained in one line, and suit at least one situation."""
    suits = False
    for situation in SITUATIONS:
        expectation, where = plugin.expect(situation), describe(situation)
        assert abs(expectation.gain) <= MAX_GAIN, f"a gain of {expectation.gain} for {where} is not credible"
        assert expectation.gain_sd <= MAX_GAIN_SD, f"a gain_sd of {expectation.gain_sd} for {where} says nothing"
        why = expectation.why
        fits = bool(why.strip()) and "\n" not in why and len(why) <= MAX_WHY
        assert fits, f"why must be one line of 1 to {MAX_WHY} characters, found {why!r} for {where}"
        suits = suits or expectation.suits
    assert suits, "it suits none of the situations from 4 to a million images: the planner would never choose it"


def check_answers_are_fast(plugin: StrategyUnderTest) -> None:
    """Answering takes less than 0.05 s: the planner asks many times."""
    seconds = []
    for situation in SAMPLE:
        started_s = time.perf_counter()
        plugin.recipe(situation)
        plugin.expect(situation)
        seconds.append((time.perf_counter() - started_s) / 2)
    median_s = sorted(seconds)[len(seconds) // 2]
    assert median_s <= MAX_ANSWER_S, f"an answer takes {median_s:.2f} s (median), at most {MAX_ANSWER_S} s is allowed"


def check_answers_are_deterministic(plugin: StrategyUnderTest) -> None:
    """A situation gives the same answers again, in any order and in a new process."""
    answers = {situation: (plugin.recipe(situation), plugin.expect(situation)) for situation in SAMPLE}
    for situation in reversed(SAMPLE):
        again = plugin.recipe(situation), plugin.expect(situation)
        assert again == answers[situation], f"two answers for {describe(situation)}:\n  {answers[situation]}\n  {again}"
    lines = lines_printed_by(ANSWER_SCRIPT, plugin.entry.entry_point)[-len(SAMPLE) :]
    for situation, line in zip(SAMPLE, lines, strict=True):
        here = str(tuple(answer.model_dump_json() for answer in answers[situation]))
        assert line == here, f"another answer in a new process for {describe(situation)}:\n  {here}\n  {line}"


def check_learns_toy_task(plugin: StrategyUnderTest) -> None:
    """After training with the real trainer, three classes of small images are recognized clearly better than by chance."""
    accuracy = plugin.toy_result.accuracy
    text = f"accuracy {accuracy:.0%} on the toy task, chance is {1 / len(CLASSES):.0%}, at least {MIN_ACCURACY:.0%} is expected"
    assert accuracy >= MIN_ACCURACY, f"{text}: are the learning rates or epochs too low?"


def check_trained_blocks_change(plugin: StrategyUnderTest) -> None:
    """Training changes each block that a phase trains."""
    trained = {block for phase in plugin.toy_recipe.phases for block in phase.train_blocks}
    unchanged = sorted(trained - plugin.toy_result.changed_blocks)
    assert not unchanged, (
        f"blocks {unchanged} are to be trained, but none of their tensors changes: is the learning rate too low?"
    )


STRATEGY_CHECKS = (
    check_summary,
    check_options,
    check_recipe,
    check_expectation,
    check_answers_are_fast,
    check_answers_are_deterministic,
    check_every_option_has_an_effect,
    check_learns_toy_task,
    check_trained_blocks_change,
)
