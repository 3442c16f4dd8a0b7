"""Multi-level features: those of a backbone next to pooled outputs of its last blocks, from one forward pass.

Intermediate blocks hold what images far from the pretraining data need, and where in the image it is (Head2Toe, Evci et al.,
arXiv 2201.03529). How much each part counts is chosen with the head, by cross-validation (``training/closed_form.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from automl_tl.contracts import Backbone, BackboneCard
from automl_tl.plugin_host.composition import random_images
from automl_tl.plugin_host.ensemble import FeatureConcatenation
from automl_tl.plugin_host.isolation import LEVELS, LoadedBackbone

if TYPE_CHECKING:
    from collections.abc import Mapping

NUM_LEVELS: Final = 4  # last blocks before the features; more gain nothing (decision 61)
MAX_CHANNELS_OF_GRID: Final = 384  # wider levels are pooled over the whole image only, which bounds the width of the features
MAX_PREFIX_TOKENS: Final = 8  # class token and registers of a transformer, in front of the patches
EPSILON: Final = 1e-8  # a constant channel has a gradient, too


@cache
def multi_level(backbone: LoadedBackbone) -> LoadedBackbone:
    """Return ``backbone`` with multi-level features, as a backbone of one block.

    Raises:
        PluginError: it has no blocks whose output could be pooled.
    """
    with backbone.plugin.error_boundary(f"pooling the levels of {backbone.card.name}"):
        return LoadedBackbone(backbone.plugin, _MultiLevel(backbone))


class PooledLevels(nn.Module):
    """Blocks with the pooled outputs of the last ones: mean, standard deviation and 2x2 grid of means of each channel."""

    def __init__(self, blocks: nn.Sequential) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images ``(B, 3, H, W)`` to all parts ``(B, sum of sizes)``; the last part is the features."""
        return torch.cat(self.parts(images), dim=1)

    def parts(self, images: Tensor) -> list[Tensor]:
        """Return the parts, each ``(B, size)``; the last one is the features, bit for bit."""
        parts: list[Tensor] = []
        x = images
        first, last = len(self.blocks) - 1 - NUM_LEVELS, len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            x = block(x)
            if max(first, 0) <= index < last:
                parts += _pooled(x)
        return [*parts, x]


class LevelConcatenation(nn.Module):
    """The parts of ``PooledLevels``, each scaled to unit length.

    Args:
        blocks: of the backbone.
        sizes: number of values of each part.
    """

    def __init__(self, blocks: nn.Sequential, sizes: Sequence[int]) -> None:
        super().__init__()
        self.levels = PooledLevels(blocks)
        self.sizes = tuple(sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images ``(B, 3, H, W)`` to features ``(B, sum of sizes)``."""
        return torch.cat([functional.normalize(part, dim=1) for part in self.levels.parts(images)], dim=1)

    def scale_in_place(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale each part of ``rows`` ``(N, sum of sizes)``, the output of ``levels``, to unit length."""
        for part in np.split(rows, np.cumsum(self.sizes)[:-1], axis=1):
            part /= np.maximum(np.sqrt(np.einsum("nd,nd->n", part, part)), 1e-12)[:, None]
        return rows


Parts = tuple[tuple[int, ...], ...]
"""Sizes of the parts of multi-level features, for each member of an ensemble; the last part of each is the backbone's own."""


def parts_of(encoder: nn.Module) -> Parts:
    """Return the parts of an encoder's features; empty unless all of them are multi-level."""
    first = next(iter(encoder.children()), None)
    if isinstance(first, LevelConcatenation):
        return (first.sizes,)
    if isinstance(first, FeatureConcatenation):
        members = [parts_of(member) for member in first.encoders]
        return tuple(sizes for parts in members for sizes in parts) if all(members) else ()
    return ()


def unscaled(encoder: nn.Sequential) -> nn.Sequential:
    """Return the blocks whose output is cached: of multi-level features ``PooledLevels``, otherwise ``encoder`` itself.

    Args:
        encoder: all blocks.
    """
    first = next(iter(encoder.children()), None)
    return nn.Sequential(first.levels) if isinstance(first, LevelConcatenation) else encoder


def _pooled(x: Tensor) -> list[Tensor]:
    """Pool feature maps ``(B, C, H, W)`` or ``(B, H, W, C)``, or tokens ``(B, T, C)``; other outputs give no level."""
    # 1) Maps (B, C, H, W). Images are square, so the two equal sides are height and width.
    if x.ndim == 3 and x.shape[1] >= 4:
        side = isqrt(x.shape[1])
        num_prefix = x.shape[1] - side**2
        tokens = x[:, num_prefix:] if num_prefix <= MAX_PREFIX_TOKENS else x
        maps = tokens.transpose(1, 2)
        maps = maps.reshape(len(maps), -1, side, side) if num_prefix <= MAX_PREFIX_TOKENS else maps[..., None]
    elif x.ndim == 4:
        is_channels_last = x.shape[1] == x.shape[2] != x.shape[3]
        maps = x.permute(0, 3, 1, 2) if is_channels_last else x
    else:
        return []
    # 2) Mean and standard deviation, and where the level is narrow the means of the four quarters, which overlap by one.
    mean = maps.mean(dim=(2, 3))
    deviation = ((maps - mean[:, :, None, None]).square().mean(dim=(2, 3)) + EPSILON).sqrt()
    channels, height, width = maps.shape[1:]
    if channels > MAX_CHANNELS_OF_GRID or min(height, width) < 2:
        return [mean, deviation]
    top, bottom = maps[:, :, : (height + 1) // 2], maps[:, :, height // 2 :]
    halves = [(half[..., : (width + 1) // 2], half[..., width // 2 :]) for half in (top, bottom)]
    grid = [quarter.mean(dim=(2, 3)) for pair in halves for quarter in pair]
    return [mean, deviation, torch.cat(grid, dim=1)]


class _MultiLevel(Backbone):
    def __init__(self, backbone: LoadedBackbone) -> None:
        self._backbone = backbone
        self._sizes = _sizes(backbone)
        update = {"name": backbone.card.name + LEVELS, "feature_dim": sum(self._sizes), "num_blocks": 1}
        # Another library may cut the same network into other blocks, and then has other levels.
        self._card = backbone.card.model_copy(update={**update, "same_network_as": ()})

    @property
    def card(self) -> BackboneCard:
        return self._card

    def build(self, *, pretrained: bool) -> nn.Module:
        return self._backbone.build(pretrained=pretrained)

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        return [LevelConcatenation(self._backbone.blocks(network), self._sizes).eval()]

    def read_weights(self, network: nn.Module, file: Path) -> Mapping[str, Tensor] | None:
        return self._backbone.read_weights(network, file)


@torch.no_grad()
def _sizes(backbone: LoadedBackbone) -> tuple[int, ...]:
    """Return the number of values of each part."""
    with torch.random.fork_rng(devices=()):  # leaves the random generator as it is
        network = backbone.build(pretrained=False)
    levels = PooledLevels(nn.Sequential(*backbone.cut(network)).eval())
    sizes = tuple(int(part.shape[1]) for part in levels.parts(random_images(backbone.card, 1)))
    if len(sizes) == 1:
        raise ValueError("expected blocks whose output has height and width or tokens, found none before the features")
    return sizes
