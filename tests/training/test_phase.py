"""Learning rates by block and over the steps of a phase."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from automl_tl.contracts import Situation
from automl_tl.training.loop import is_out_of_memory, lr_factor, make_optimizer, select_parameters
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


def learning_rates(phase: Phase, num_blocks: int) -> list[float]:
    """Learning rates of the head and of each block in the optimizer."""
    blocks, head = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(num_blocks))), nn.Linear(2, 2, bias=False)
    select_parameters(blocks, head, phase)
    recipe = Recipe(head=Head(), phases=(phase,))
    optimizer = make_optimizer(blocks, head, phase, recipe)
    return [group["lr"] for group in optimizer.param_groups]


def test_make_optimizer_applies_block_factors() -> None:
    phase = Phase(name="all", epochs=1, train_blocks=(0, 1, 2), head_lr=1.0, encoder_lr=0.5, block_factors=(0.01, 0.1, 1.0))

    assert learning_rates(phase, 3) == pytest.approx([1.0, 0.005, 0.05, 0.5])


def test_phase_rejects_block_factors_of_another_length() -> None:
    with pytest.raises(ValidationError, match="2 block_factors for 3 train_blocks"):
        Phase(name="all", epochs=1, train_blocks=(0, 1, 2), block_factors=(0.1, 1.0))


def test_discriminative_lr_gives_each_layer_group_one_rate() -> None:
    phase = DiscriminativeLr(groups=3, lr=1e-2, spread=1e4).recipe(SITUATION).phases[-1]

    assert learning_rates(phase, 9)[1:] == pytest.approx([1e-6] * 3 + [1e-4] * 3 + [1e-2] * 3)


def test_discriminative_lr_without_groups_gives_each_block_its_own_rate() -> None:
    one, each = (DiscriminativeLr(groups=groups).recipe(SITUATION).phases[-1].block_factors for groups in (1, 0))

    assert one == (1.0,) * 9
    assert each is not None
    assert sorted(set(each)) == pytest.approx([10 ** (-exponent / 4) for exponent in range(8, -1, -1)])


def test_full_finetune_scales_the_head_rate() -> None:
    phase = FullFinetune(lr=1e-3, head_factor=10, block_decay=1).recipe(SITUATION).phases[0]

    assert learning_rates(phase, 9) == pytest.approx([1e-2] + [1e-3] * 9)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_lr_factor_warms_up_peaks_at_one_and_decays(schedule: str) -> None:
    phase = Phase.model_validate({"name": "p", "epochs": 1, "schedule": schedule})
    factors = [lr_factor(phase, progress) for progress in np.linspace(0, 0.999, 200)]

    assert factors[0] < 0.1
    assert max(factors) == pytest.approx(1, abs=0.02)
    assert factors[-1] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_is_out_of_memory_recognizes_every_allocator(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory
