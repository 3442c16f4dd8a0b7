"""The plugin contract, and what is special about surgical fine-tuning."""

from __future__ import annotations

import pytest
from automl_tl.testing import Check, parametrize_with_checks, toy_situation

from automl_tl_surgical import Part, Surgical


@parametrize_with_checks("surgical")
def test_strategy_keeps_contract(check: Check) -> None:
    check()


@pytest.mark.parametrize(("part", "blocks"), [("first", (0, 1, 2)), ("middle", (3, 4, 5)), ("last", (6, 7, 8))])
def test_recipe_trains_third(part: Part, blocks: tuple[int, ...]) -> None:
    recipe = Surgical(part=part).recipe(toy_situation(num_blocks=9))

    assert recipe.phases[0].train_blocks == blocks


@pytest.mark.parametrize(("similarity", "part"), [(0.1, "first"), (0.5, "middle"), (0.9, "last"), (None, "middle")])
def test_recipe_chooses_third_by_similarity(similarity: float | None, part: Part) -> None:
    situation = toy_situation().model_copy(update={"similarity": similarity})

    assert Surgical().recipe(situation) == Surgical(part=part).recipe(situation)
