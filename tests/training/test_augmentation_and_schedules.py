"""Views and rates are functions of their arguments alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from automl_tl.training.augmentation import augment, view_numbers
from automl_tl.training.rates import find_rate
from automl_tl.training.schedules import rate_factor
from automl_tl.values import Phase

DIGESTS = ["a" * 64, "b" * 64, "c" * 64]


def test_a_view_is_the_same_in_any_batch_and_another_for_another_seed() -> None:
    together = view_numbers(DIGESTS, view=1, level="strong", flips=True, seed=0)
    alone = view_numbers(DIGESTS[1:2], view=1, level="strong", flips=True, seed=0)
    other = view_numbers(DIGESTS[1:2], view=1, level="strong", flips=True, seed=1)

    assert np.array_equal(together[1], alone[0])
    assert not np.array_equal(alone, other)


def test_without_flips_nothing_is_mirrored() -> None:
    numbers = np.concatenate([view_numbers(DIGESTS, view=v, level="light", flips=False, seed=0) for v in range(20)])

    assert (numbers[:, 4] == 1).all()


def test_the_whole_canvas_seen_straight_is_the_canvas() -> None:
    canvas = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    mirrored = torch.tensor([[0.0, 0.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0]])

    assert torch.allclose(augment(canvas, whole, 16)[0].permute(1, 2, 0), canvas[0].float(), atol=1e-3)
    assert torch.allclose(augment(canvas, mirrored, 16)[0].permute(1, 2, 0), canvas[0].flip(1).float(), atol=1e-3)


def test_light_changes_brightness_contrast_and_saturation() -> None:
    canvas = torch.full((1, 8, 8, 3), 100, dtype=torch.uint8)
    brighter = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 1.2, 1.0, 1.0]])

    assert torch.allclose(augment(canvas, brighter, 8), torch.tensor(120.0), atol=1e-2)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "one_cycle"])
def test_rates_rise_first_never_exceed_the_rate_and_end_low(schedule: str) -> None:
    phase = Phase.model_validate({"name": "p", "epochs": 1, "schedule": schedule})
    factors = [rate_factor(phase, done) for done in np.linspace(0, 0.999, 200)]

    assert factors[0] < 0.1
    assert max(factors) == pytest.approx(1, abs=0.02)
    assert factors[-1] == pytest.approx(1 if schedule == "constant" else 0, abs=0.02)


def test_the_range_test_stays_below_the_rate_at_which_the_loss_explodes() -> None:
    def step(rate: float) -> float:
        return 1 - rate if rate < 0.1 else float("inf")

    assert 1e-3 < find_rate(step) < 0.1
