"""Small images that a small network can tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLORS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}


def colored_pixels(
    color: str, rng: np.random.Generator, side_px: int = 40, colors: Mapping[str, tuple[int, int, int]] = COLORS
) -> NDArray[np.uint8]:
    """A noisy image of one of ``colors``, ``(side_px, side_px, 3)``."""
    noise = rng.normal(0, 40, size=(side_px, side_px, 3))
    return np.clip(np.array(colors[color]) + noise, 0, 255).astype(np.uint8)


def write_colors(
    folder: Path,
    per_class: int,
    *,
    classes: Sequence[str] = ("green", "red"),
    seed: int = 0,
    colors: Mapping[str, tuple[int, int, int]] = COLORS,
) -> Path:
    """A folder of class folders with ``per_class`` images each."""
    for color in classes:
        rng = np.random.default_rng([seed, *color.encode()])
        (folder / color).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            Image.fromarray(colored_pixels(color, rng, colors=colors)).save(folder / color / f"{number:03}.png")
    return folder
