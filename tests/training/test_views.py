"""Augmented views are functions of image, view and seed alone."""

from __future__ import annotations

import numpy as np
import torch

from automl_tl.training.views import augment, view_parameters

DIGESTS = ["a" * 64, "b" * 64, "c" * 64]


def test_view_parameters_depend_on_image_view_and_seed_only() -> None:
    together = view_parameters(DIGESTS, view=1, level="medium", flips=True, seed=0)
    alone = view_parameters(DIGESTS[1:2], view=1, level="medium", flips=True, seed=0)
    other = view_parameters(DIGESTS[1:2], view=1, level="medium", flips=True, seed=1)

    assert np.array_equal(together[1], alone[0])
    assert not np.array_equal(alone, other)


def test_view_parameters_without_flips_never_mirror() -> None:
    numbers = np.concatenate([view_parameters(DIGESTS, view=v, level="light", flips=False, seed=0) for v in range(20)])

    assert (numbers[:, 4] == 1).all()


def test_augment_identity_and_mirror() -> None:
    canvas = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    mirrored = torch.tensor([[0.0, 0.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0]])

    assert torch.allclose(augment(canvas, whole, 16)[0].permute(1, 2, 0), canvas[0].float(), atol=1e-3)
    assert torch.allclose(augment(canvas, mirrored, 16)[0].permute(1, 2, 0), canvas[0].flip(1).float(), atol=1e-3)


def test_augment_changes_brightness() -> None:
    canvas = torch.full((1, 8, 8, 3), 100, dtype=torch.uint8)
    brighter = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 1.2, 1.0, 1.0]])

    assert torch.allclose(augment(canvas, brighter, 8), torch.tensor(120.0), atol=1e-2)
