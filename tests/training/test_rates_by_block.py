"""Rates fall towards the input, block by block or group by group."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from torch import nn

from automl_tl.contracts import Situation
from automl_tl.training.parts import optimizer_for, select_parameters
from automl_tl.values import Head, Phase, Recipe
from automl_tl_strategies.discriminative_lr import DiscriminativeLr
from automl_tl_strategies.full_finetune import FullFinetune

SITUATION = Situation(
    num_images=100,
    num_classes=2,
    min_images_per_class=50,
    imbalance=1.0,
    num_blocks=9,
    feature_dim=8,
    image_side_px=32,
    similarity=1.0,
)


def rates(phase: Phase, num_blocks: int) -> list[float]:
    """Of the head and of each block, as the optimizer has them."""
    blocks, head = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(num_blocks))), nn.Linear(2, 2, bias=False)
    select_parameters(blocks, head, phase)
    recipe = Recipe(head=Head(), phases=(phase,))
    optimizer = optimizer_for(blocks, head, phase, recipe, head_lr=phase.head_lr or 1.0)
    return [group["lr"] for group in optimizer.param_groups]


def test_factors_give_each_block_its_rate() -> None:
    phase = Phase(name="all", epochs=1, train_blocks=(0, 1, 2), head_lr=1.0, encoder_lr=0.5, block_factors=(0.01, 0.1, 1.0))

    assert rates(phase, 3) == pytest.approx([1.0, 0.005, 0.05, 0.5])


def test_factors_for_other_blocks_than_learn_are_refused() -> None:
    with pytest.raises(ValidationError, match="2 block_factors for 3 train_blocks"):
        Phase(name="all", epochs=1, train_blocks=(0, 1, 2), block_factors=(0.1, 1.0))


def test_three_layer_groups_have_three_rates_the_earliest_the_smallest() -> None:
    phase = DiscriminativeLr(groups=3, lr=1e-2, spread=1e4).recipe(SITUATION).phases[-1]

    assert rates(phase, 9)[1:] == pytest.approx([1e-6] * 3 + [1e-4] * 3 + [1e-2] * 3)


def test_one_group_is_one_rate_and_no_groups_are_one_per_block() -> None:
    one, each = (DiscriminativeLr(groups=groups).recipe(SITUATION).phases[-1].block_factors for groups in (1, 0))

    assert one == (1.0,) * 9
    assert each is not None
    assert sorted(set(each)) == pytest.approx([10 ** (-exponent / 4) for exponent in range(8, -1, -1)])


def test_the_head_learns_as_much_faster_as_was_asked() -> None:
    phase = FullFinetune(lr=1e-3, head_factor=10, block_decay=1).recipe(SITUATION).phases[0]

    assert rates(phase, 9) == pytest.approx([1e-2] + [1e-3] * 9)
