"""Cheaper versions of a recipe: what they leave out, and what they promise."""

from __future__ import annotations

import pytest

from automl_tl.contracts import Expectation
from automl_tl.planning.variants import recipe_variants
from automl_tl.values import Phase, Recipe

HEAD = Phase(name="head", epochs=1)
TOP = Phase(name="top", epochs=5, train_blocks=(4, 2, 3), block_factors=(1.0, 0.1, 0.5))
EXPECTED = Expectation(suits=True, gain=0.1, gain_sd=0.03, why="adapts a part")


def versions(expectation: Expectation = EXPECTED) -> list[tuple[Recipe, Expectation]]:
    return list(recipe_variants(Recipe(phases=(HEAD, TOP)), expectation))


def test_the_whole_comes_first_and_then_cheaper_and_cheaper() -> None:
    found = versions()

    assert found[0] == (Recipe(phases=(HEAD, TOP)), EXPECTED)
    assert [tuple(phase.epochs for phase in recipe.phases) for recipe, _ in found] == [(1, 5), (1, 3), (1, 5), (1, 3)]
    assert [recipe.phases[1].train_blocks for recipe, _ in found] == [(4, 2, 3), (4, 2, 3), (3, 4), (3, 4)]
    assert [expected.gain for _, expected in found] == pytest.approx([0.1, 0.07, 0.05, 0.045])


def test_blocks_keep_their_own_rates() -> None:
    assert [recipe.phases[1].block_factors for recipe, _ in versions()[1:3]] == [(1.0, 0.1, 0.5), (0.5, 1.0)]


def test_every_version_says_what_was_spared() -> None:
    assert [expected.why for _, expected in versions()[1:]] == [
        "adapts a part; shortened to fit the budget: half of the epochs",
        "adapts a part; shortened to fit the budget: upper half of the blocks",
        "adapts a part; shortened to fit the budget: upper half of the blocks, half of the epochs",
    ]


def test_less_of_what_does_harm_is_not_said_to_do_less() -> None:
    assert {expected.gain for _, expected in versions(EXPECTED.model_copy(update={"gain": -0.1}))} == {-0.1}
