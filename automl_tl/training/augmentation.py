"""Augmentation on the device, a whole batch at once, from numbers that depend only on image, view and seed.

An image is kept as a square *canvas*, ``(S, S, 3)`` bytes with ``S = side_px / crop_fraction``. A view is a crop of it with
a flip and a change of light. The same view of the same image is always the same, on any run and in any batch, so that
views can be cached and a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["Level", "augment", "view_numbers"]

Level = Literal["none", "light", "medium"]

# Of the canvas' area, light and color: (smallest crop, brightness, contrast, saturation). Light is the fine-tuning default of
# the planner notes (section 4), medium goes towards torchvision's reference recipes.
LEVELS: Final[dict[Level, tuple[float, float, float, float]]] = {
    "none": (1.0, 0.0, 0.0, 0.0),
    "light": (0.7, 0.0, 0.0, 0.0),
    "medium": (0.5, 0.2, 0.2, 0.2),
}
ASPECTS: Final = (3 / 4, 4 / 3)
LUMA: Final = (0.299, 0.587, 0.114)


def view_numbers(digests: Sequence[str], *, view: int, level: Level, flips: bool, seed: int) -> NDArray[np.float32]:
    """Numbers ``(B, 8)`` that make a view of each image: center x, y, half width, half height, flip, three factors of light.

    Positions are in the coordinates of ``grid_sample``, -1 to 1.
    """
    return np.stack([_numbers(digest, view, level, flips, seed) for digest in digests])


def _numbers(digest: str, view: int, level: Level, flips: bool, seed: int) -> NDArray[np.float32]:
    key = hashlib.blake2b(f"{digest} {view} {seed}".encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(key, "little"))
    smallest, *light = LEVELS[level]
    area = rng.uniform(smallest, 1.0)
    aspect = np.exp(rng.uniform(*np.log(ASPECTS))) if smallest < 1 else 1.0
    half_width, half_height = np.minimum(np.sqrt(area * np.array([aspect, 1 / aspect])), 1.0)
    x, y = rng.uniform(-1, 1, size=2) * (1 - np.array([half_width, half_height]))
    flip = -1.0 if flips and rng.random() < 0.5 else 1.0
    factors = [rng.uniform(1 - strength, 1 + strength) for strength in light]
    return np.array([x, y, half_width, half_height, flip, *factors], dtype=np.float32)


def augment(canvases: Tensor, numbers: Tensor, side_px: int) -> Tensor:
    """Views ``(B, 3, side_px, side_px)`` of ``canvases`` ``(B, S, S, 3)``, uint8.

    Float32, but whole numbers from 0 to 255 as in an image file: a view is then the same whether it was kept or not.
    """
    x, y, half_width, half_height, flip, brightness, contrast, saturation = numbers.unbind(dim=1)
    zero = torch.zeros_like(x)
    rows = [torch.stack([half_width * flip, zero, x], dim=1), torch.stack([zero, half_height, y], dim=1)]
    grid = functional.affine_grid(torch.stack(rows, dim=1), [len(canvases), 3, side_px, side_px], align_corners=False)
    planes = canvases.permute(0, 3, 1, 2).float()
    views = functional.grid_sample(planes, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return _relight(views, brightness, contrast, saturation).round()


def _relight(views: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    if not any(bool((factor != 1).any()) for factor in (brightness, contrast, saturation)):
        return views
    views = views * brightness.view(-1, 1, 1, 1)
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    views = mean + (views - mean) * contrast.view(-1, 1, 1, 1)
    gray = (views * views.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    return (gray + (views - gray) * saturation.view(-1, 1, 1, 1)).clamp(0, 255)
