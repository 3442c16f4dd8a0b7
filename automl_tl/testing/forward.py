"""Images through blocks, for the checks that compare features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl.contracts import BackboneCard
from automl_tl.plugin_host.entries import cause
from automl_tl.testing.trials import on_the_cpu
from automl_tl.testing.verdicts import Unreachable

if TYPE_CHECKING:
    from torch import Tensor

    from automl_tl.testing.subjects import BackboneSubject, Built

__all__ = ["fed_images", "forward", "largest_difference"]


def fed_images(card: BackboneCard, num_images: int, *, side_px: int | None = None) -> Tensor:
    """Random images ``(num_images, 3, side_px, side_px)``, float32; the first ones are the same for any number."""
    import torch

    side = side_px or card.preprocessing.side_px
    return torch.stack([torch.randn(3, side, side, generator=torch.Generator().manual_seed(i)) for i in range(num_images)])


def forward(subject: BackboneSubject, built: Built, images: int | Tensor, *, with_gradient: bool = False) -> Tensor:
    """Features ``(B, D)`` of ``images`` (or of so many random ones)."""
    import torch

    passed = fed_images(subject.offered.card, images) if isinstance(images, int) else images
    try:
        with on_the_cpu(), torch.set_grad_enabled(with_gradient):
            for block in built.blocks:
                passed = block(passed)
    except Exception as error:
        raise Unreachable("every_boundary_is_one_tensor", cause(error)) from error
    if not isinstance(passed, torch.Tensor):
        raise Unreachable("every_boundary_is_one_tensor", f"features are {type(passed).__name__}")
    return passed


def largest_difference(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest value of ``other``; disabled if the shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))
