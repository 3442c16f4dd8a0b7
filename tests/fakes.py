"""Small real things instead of mocks: images that a small network can tell apart, and a small network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from automl_tl.contracts import Backbone, BackboneCard, Preprocessing

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

COLORS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}
SIDE_PX = 32


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


class TinyBackbone(Backbone):
    """Three blocks of convolution and batch norm, weights from a fixed seed."""

    @property
    def card(self) -> BackboneCard:
        """Facts."""
        return BackboneCard(
            name="tiny/three_blocks",
            family="tiny",
            preprocessing=Preprocessing(side_px=SIDE_PX, crop_fraction=0.8),
            feature_dim=12,
            num_blocks=3,
            num_parameters=3_600,
            num_macs=200_000,
            pretrained_on="nothing",
            imagenet_top1=0.1,
            license="Apache-2.0",
            weights="package",
            weights_mib=0.02,
        )

    def build(self, *, pretrained: bool) -> nn.Module:
        """The network; ``pretrained`` means the weights of seed 0."""
        import torch
        from torch import nn

        with torch.random.fork_rng():
            if pretrained:
                torch.manual_seed(0)
            widths = (3, 6, 8, 12)
            blocks = [
                nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.BatchNorm2d(o), nn.ReLU())
                for i, o in pairwise(widths)
            ]
            blocks[-1].append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
            return nn.Sequential(*blocks).eval()

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """Its three children."""
        return list(network.children())


def backbones() -> Sequence[Backbone]:
    """What the entry point of a plugin would name."""
    return [TinyBackbone()]
