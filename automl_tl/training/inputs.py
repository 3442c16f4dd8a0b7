"""What the learning blocks are fed: activations at the boundary between the frozen part and the part that learns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automl_tl.data.decoding import decode, to_input
from automl_tl.models.engines import Engine, Normalize, blocks_digest, fastest_engine, layout_on
from automl_tl.models.features import BATCH_SIZE, embed
from automl_tl.runtime.batches import batches, in_order
from automl_tl.training.activations import Cache, Rows
from automl_tl.training.augmentation import augment, view_numbers
from automl_tl.training.images import LabeledImages
from automl_tl.values import Phase, Preprocessing

__all__ = ["CachedViews", "FreshViews", "Inputs", "Prefix", "augmented"]


class Inputs(Protocol):
    """Batches of activations, by the positions of their images."""

    def batch(self, positions: NDArray[np.int64], epoch: int) -> Tensor:
        """Activations ``(B, ...)`` on the device of the frozen part."""


@dataclass(frozen=True)
class Prefix:
    """The frozen blocks in front of the boundary, with where their activations are cached."""

    blocks: nn.Sequential
    preprocessing: Preprocessing
    cache: Cache
    gives_features: bool  # the whole encoder: small rows, kept in full precision

    def plain(self, images: LabeledImages) -> Rows:
        """Activations of ``images`` as prediction sees them."""

        def compute(missing: LabeledImages) -> Iterator[NDArray[np.generic]]:
            engine = self.engine(len(images))  # not of the missing ones: the same images always go through the same engine
            for rows in embed([record.path for record in missing.records], missing.read, engine, self.preprocessing):
                yield self._stored(rows)

        return self.cache.rows(images, [*self._key(), "plain"], compute, description="looking at images")

    def missing(self, images: LabeledImages) -> list[int]:
        """Positions of the images that ``plain`` would have to compute."""
        return self.cache.missing(images, [*self._key(), "plain"])

    def view(self, images: LabeledImages, view: int, *, phase: Phase, flips: bool, seed: int) -> Rows:
        """Activations of an augmented view of ``images``."""
        canvases = canvases_of(images, self.preprocessing, self.cache)
        position_of = {digest: position for position, digest in enumerate(canvases.digests)}

        def compute(missing: LabeledImages) -> Iterator[NDArray[np.generic]]:
            engine = self.engine(len(images))
            for few in batches((record.digest for record in missing.records), BATCH_SIZE):
                numbers = view_numbers(few, view=view, level=phase.augmentation, flips=flips, seed=seed)
                pixels = canvases.at([position_of[digest] for digest in few])
                views = augment(torch.from_numpy(pixels), torch.from_numpy(numbers), self.preprocessing.side_px)
                yield self._stored(engine(views.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()))

        key = [*self._key(), phase.augmentation, f"view {view}", f"flips {flips}", f"seed {seed}"]
        return self.cache.rows(images, key, compute, description=f"looking at images, view {view}")

    def engine(self, num_images: int) -> Engine:
        """What runs the blocks, for so many images."""
        return fastest_engine(
            self.blocks,
            self.preprocessing,
            cache_dir=self.cache.folder,
            num_images=num_images,
            progress=self.cache.progress,
        )

    def _key(self) -> Sequence[str]:
        return [blocks_digest(self.blocks), self.preprocessing.model_dump_json()]

    def _stored(self, rows: NDArray[np.float32]) -> NDArray[np.generic]:
        return rows if self.gives_features else rows.astype(np.float16)


def canvases_of(images: LabeledImages, preprocessing: Preprocessing, cache: Cache) -> Rows:
    """Canvases ``(S, S, 3)``, uint8: the center square of each image at the size that views are cut from. Decoded once."""
    side_px = round(preprocessing.side_px / preprocessing.crop_fraction)
    square = Preprocessing(side_px=side_px, crop_fraction=1.0, interpolation=preprocessing.interpolation)

    def compute(missing: LabeledImages) -> Iterator[NDArray[np.uint8]]:
        def canvas(path: str) -> NDArray[np.uint8]:
            return to_input(decode(missing.read(path), side_px=side_px).image, square)

        for few in batches(in_order([record.path for record in missing.records], canvas), BATCH_SIZE):
            yield np.stack(few)

    return cache.rows(images, ["canvas", f"{side_px} {preprocessing.interpolation}"], compute, description="decoding images")


@dataclass(frozen=True)
class CachedViews:
    """A fixed number of views per image, computed once; each image goes through all of them before one returns."""

    views: tuple[Rows, ...]
    device: torch.device

    def batch(self, positions: NDArray[np.int64], epoch: int) -> Tensor:
        """See ``Inputs``."""
        turns = (positions + epoch) % len(self.views)
        rows = np.stack([self.views[turn].at([position])[0] for turn, position in zip(turns, positions, strict=True)])
        return torch.from_numpy(rows).to(self.device).float()


class FreshViews:
    """A new view of each image in every epoch: the frozen part runs each time."""

    def __init__(self, prefix: Prefix, canvases: Rows, *, phase: Phase, flips: bool, seed: int, device: torch.device) -> None:
        self._canvases, self._phase, self._flips, self._seed = canvases, phase, flips, seed
        self._side_px, self._device = prefix.preprocessing.side_px, device
        network = nn.Sequential(NormalizePlanes(prefix.preprocessing), *prefix.blocks).to(device)
        self._network = network.to(memory_format=layout_on(device)).eval()

    @torch.no_grad()
    def batch(self, positions: NDArray[np.int64], epoch: int) -> Tensor:
        """See ``Inputs``."""
        digests = [self._canvases.digests[position] for position in positions]
        numbers = view_numbers(digests, view=epoch, level=self._phase.augmentation, flips=self._flips, seed=self._seed)
        pixels = torch.from_numpy(self._canvases.at(positions)).to(self._device)
        views = augment(pixels, torch.from_numpy(numbers).to(self._device), self._side_px)
        result: Tensor = self._network(views.contiguous(memory_format=layout_on(self._device)))
        return result


class NormalizePlanes(Normalize):
    """As ``Normalize``, from float32 ``(B, 3, H, W)`` in 0 to 255."""

    def forward(self, planes: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to the same, normalized."""
        return torch.addcmul(self.get_buffer("offset"), planes, self.get_buffer("factor"))


def augmented(prefix: Prefix, images: LabeledImages, *, phase: Phase, flips: bool, seed: int, device: torch.device) -> Inputs:
    """The inputs that ``phase`` asks for: cached views or fresh ones. Without augmentation one plain view is all there is."""
    if phase.augmentation == "none":
        return CachedViews((prefix.plain(images),), device)
    if not phase.cached_views:
        canvases = canvases_of(images, prefix.preprocessing, prefix.cache)
        return FreshViews(prefix, canvases, phase=phase, flips=flips, seed=seed, device=device)
    others = (prefix.view(images, view, phase=phase, flips=flips, seed=seed) for view in range(1, phase.cached_views))
    return CachedViews((prefix.plain(images), *others), device)
