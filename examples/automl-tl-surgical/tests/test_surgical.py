"""What every strategy promises, and what is special about this one."""

from __future__ import annotations

import pytest
from automl_tl.testing import BoundCheck, strategy_checks, toy_situation

from automl_tl_surgical import Part, Surgical

CHECKS = strategy_checks("surgical", option_values={"part": ["first", "last"]})


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_the_contract_is_kept(check: BoundCheck) -> None:
    check()


def test_no_check_was_left_out() -> None:
    CHECKS.report().require()


@pytest.mark.parametrize(("part", "blocks"), [("first", (0, 1, 2)), ("middle", (3, 4, 5)), ("last", (6, 7, 8))])
def test_each_third_is_where_its_name_says(part: Part, blocks: tuple[int, ...]) -> None:
    recipe = Surgical(part=part).recipe(toy_situation(num_blocks=9))

    assert recipe.phases[0].train_blocks == blocks


@pytest.mark.parametrize(("similarity", "part"), [(0.1, "first"), (0.5, "middle"), (0.9, "last"), (None, "middle")])
def test_the_less_similar_the_nearer_to_the_input(similarity: float | None, part: Part) -> None:
    situation = toy_situation().model_copy(update={"similarity": similarity})

    assert Surgical().recipe(situation) == Surgical(part=part).recipe(situation)
