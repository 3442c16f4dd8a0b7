"""Inputs of the trained blocks: augmented views of images, passed through the frozen blocks and cached where they are fixed.

An image is kept as a square *canvas*, ``(S, S, 3)`` uint8 with ``S = side_px / crop_fraction``. A view is a crop of it with
a flip and color jitter, made on the device for a whole batch. Its parameters depend only on image, view number and seed, so
views can be cached, and a resumed run sees the views that an uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn import functional

from automl_tl.data.decode import DECODER, decode, to_input
from automl_tl.data.workers import Workers
from automl_tl.models.engines import (
    BATCH_SIZE,
    Engine,
    Normalize,
    best_device,
    blocks_digest,
    embed,
    fastest_engine,
    layout_on,
    load_batches,
    precision_on,
)
from automl_tl.plugin_host.composition import libraries_of
from automl_tl.plugin_host.levels import LevelConcatenation, unscaled
from automl_tl.runtime.threads import batches
from automl_tl.training.images import LabeledImages
from automl_tl.training.workspace import BATCHES_PER_SEGMENT, ActivationCache, CachedRows
from automl_tl.values import Phase, Preprocessing

Level = Literal["none", "light", "medium"]

# By level: smallest crop (fraction of the canvas' area), brightness, contrast, saturation.
LEVELS: Final[dict[Level, tuple[float, float, float, float]]] = {
    "none": (1.0, 0.0, 0.0, 0.0),
    "light": (0.7, 0.0, 0.0, 0.0),
    "medium": (0.5, 0.2, 0.2, 0.2),
}
ASPECT_RATIOS: Final = (3 / 4, 4 / 3)
JOBS_PER_SLOT: Final = 4  # of an executor, so that slots of unequal speed end at about the same time
LUMA: Final = (0.299, 0.587, 0.114)


def view_parameters(digests: Sequence[str], *, view: int, level: Level, flips: bool, seed: int) -> NDArray[np.float32]:
    """Return the parameters ``(B, 8)`` of one view of each image.

    Columns: center x, center y, half width, half height (in the coordinates of ``grid_sample``, -1 to 1), flip (-1 or 1),
    and the factors of brightness, contrast and saturation.

    Args:
        digests: sha256 of B images.
        view: number of the view; views of other numbers differ.
        level: strength of the augmentation.
        flips: mirror half of the views.
        seed: of the run.
    """
    smallest, *jitter = LEVELS[level]
    rows = []
    for digest in digests:
        key = hashlib.blake2b(f"{digest} {view} {seed}".encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(key, "little"))
        area = rng.uniform(smallest, 1.0)
        aspect = np.exp(rng.uniform(*np.log(ASPECT_RATIOS))) if smallest < 1 else 1.0
        half_width, half_height = np.minimum(np.sqrt(area * np.array([aspect, 1 / aspect])), 1.0)
        x, y = rng.uniform(-1, 1, size=2) * (1 - np.array([half_width, half_height]))
        flip = -1.0 if flips and rng.random() < 0.5 else 1.0
        factors = [rng.uniform(1 - strength, 1 + strength) for strength in jitter]
        rows.append([x, y, half_width, half_height, flip, *factors])
    return np.array(rows, dtype=np.float32)


def augment(canvases: Tensor, parameters: Tensor, side_px: int) -> Tensor:
    """Cut one view ``(3, side_px, side_px)`` out of each canvas.

    Args:
        canvases: ``(B, S, S, 3)`` uint8.
        parameters: ``(B, 8)`` float32, from ``view_parameters``, on the same device.
        side_px: side of the views.

    Returns:
        float32, but whole numbers from 0 to 255: a cached view, stored as bytes, equals a fresh one.
    """
    x, y, half_width, half_height, flip, brightness, contrast, saturation = parameters.unbind(dim=1)
    zero = torch.zeros_like(x)
    # 1) Crop and flip by an affine map from the view to the canvas.
    rows = [torch.stack([half_width * flip, zero, x], dim=1), torch.stack([zero, half_height, y], dim=1)]
    grid = functional.affine_grid(torch.stack(rows, dim=1), [len(canvases), 3, side_px, side_px], align_corners=False)
    planes = canvases.permute(0, 3, 1, 2).float()
    views = functional.grid_sample(planes, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    # 2) Change brightness, contrast and saturation.
    if bool((parameters[:, 5:] != 1).any()):
        views = views * brightness.view(-1, 1, 1, 1)
        mean = views.mean(dim=(1, 2, 3), keepdim=True)
        views = mean + (views - mean) * contrast.view(-1, 1, 1, 1)
        gray = (views * views.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
        views = (gray + (views - gray) * saturation.view(-1, 1, 1, 1)).clamp(0, 255)
    return views.round()


class Origin(NamedTuple):
    """Where pretrained blocks come from, as another machine can build them."""

    backbone: str
    weights: str | None  # absolute path of the user's file


@dataclass(frozen=True)
class Prefix:
    """The frozen blocks in front of the first trained one; computing their activations may raise ``OutOfTime``."""

    blocks: nn.Sequential
    preprocessing: Preprocessing
    cache: ActivationCache
    gives_features: bool  # blocks are the whole encoder; features are small and cached in full precision
    origin: Origin | None = None  # how another machine builds the blocks

    def plain(self, images: LabeledImages) -> CachedRows:
        """Activations of ``images`` without augmentation, as in prediction."""
        concatenation = next(iter(self.blocks), None)
        if isinstance(concatenation, LevelConcatenation):  # cached before scaling, with the backbone's own features
            rows = replace(self, blocks=unscaled(self.blocks)).plain(images)
            return replace(rows, transform=concatenation.scale_in_place)

        key, description = [*self.key(), "plain"], "extracting features"
        if self.origin is not None and images.workers is not None:
            extract = partial(self._extract_elsewhere, images.workers, self.origin, len(images))
            return self.cache.collect(images, key, extract, description=description)

        def compute(missing: LabeledImages) -> Iterator[NDArray[np.generic]]:
            engine = self.engine(len(images))  # not len(missing): the same images always go through the same engine
            for rows in embed(missing.paths, missing.read, engine, self.preprocessing):
                yield self._stored(rows)

        return self.cache.rows(images, key, compute, description=description)

    def _extract_elsewhere(
        self, workers: Workers, origin: Origin, num_images: int, missing: LabeledImages, is_over: Callable[[], bool]
    ) -> Iterator[tuple[Sequence[str], NDArray[np.float32]]]:
        """Yield digests and features of ``missing``, in whole batches: the same ones that this process would make."""
        arguments: dict[str, JsonValue] = {"backbone": origin.backbone, "weights": origin.weights, "num_images": num_images}
        arguments |= {"key": [*self.key(), DECODER]}
        num_jobs = JOBS_PER_SLOT * max(workers.executor.slots.num_cpus, 1)
        num_batches = min(max(len(missing) // (num_jobs * BATCH_SIZE), 1), BATCHES_PER_SEGMENT)
        jobs = (
            workers.job(
                "features",
                num_cpus=1,
                num_gpus=int(best_device().type == "cuda"),
                paths=[record.path for record in records],
                digests=[record.digest for record in records],
                **arguments,
            )
            for records in batches(missing.records, num_batches * BATCH_SIZE)
        )
        for job, answer in workers.run(jobs, is_over):
            shape = cast(list[int], answer.result["shape"])
            yield cast(list[str], job.arguments["digests"]), np.frombuffer(answer.content, np.float32).reshape(shape)

    def missing(self, images: LabeledImages) -> list[int]:
        """Positions of the images whose plain activations are not cached."""
        cached = replace(self, blocks=unscaled(self.blocks))
        return self.cache.store([*cached.key(), "plain"]).missing(images.digests)

    def view(self, images: LabeledImages, view: int, *, phase: Phase, flips: bool, seed: int) -> CachedRows:
        """Return the activations of an augmented view of ``images``.

        Args:
            images: to augment.
            view: number of the view, from 1.
            phase: gives the strength of the augmentation.
            flips: mirror half of the images.
            seed: of the run.
        """
        canvases = _make_canvases(images, self.preprocessing, self.cache)
        position_of = {digest: position for position, digest in enumerate(canvases.digests)}

        def compute(missing: LabeledImages) -> Iterator[NDArray[np.generic]]:
            engine = self.engine(len(images))
            for digests in batches(missing.digests, BATCH_SIZE):
                parameters = view_parameters(digests, view=view, level=phase.augmentation, flips=flips, seed=seed)
                pixels = canvases.at([position_of[digest] for digest in digests])
                views = augment(torch.from_numpy(pixels), torch.from_numpy(parameters), self.preprocessing.side_px)
                yield self._stored(engine(views.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()))

        key = [*self.key(), phase.augmentation, f"view {view}", f"flips {flips}", f"seed {seed}"]
        return self.cache.rows(images, key, compute, description=f"extracting features, view {view}")

    def engine(self, num_images: int) -> Engine:
        """The engine that runs the blocks fastest for ``num_images`` images."""
        return fastest_engine(
            self.blocks,
            self.preprocessing,
            cache_dir=self.cache.folder,
            num_images=num_images,
            progress=self.cache.progress,
            compiled=self.cache.compiled,
        )

    def key(self) -> list[str]:
        """What the activations of an image depend on besides the image and the decoder, whose version the cache adds."""
        device = best_device()
        computing = f"{precision_on(device)} on {device.type} with {libraries_of(self.blocks)}"
        return [blocks_digest(self.blocks), self.preprocessing.model_dump_json(), computing]

    def add(self, images: LabeledImages, rows: NDArray[np.float32]) -> None:
        """Store features of ``images`` that another pass through the same blocks has computed.

        Args:
            images: of the rows.
            rows: ``(N, D)``.
        """
        store = self.cache.store([*self.key(), "plain"])
        if missing := store.missing(images.digests):
            store.append(images.at(missing).digests, rows[missing])

    def _stored(self, rows: NDArray[np.float32]) -> NDArray[np.generic]:
        return rows if self.gives_features else rows.astype(np.float16)


def _make_canvases(images: LabeledImages, preprocessing: Preprocessing, cache: ActivationCache) -> CachedRows:
    """Canvases ``(S, S, 3)``, uint8: the center square of each image at the size that views are cut from, decoded once."""
    side_px = round(preprocessing.side_px / preprocessing.crop_fraction)
    square = Preprocessing(side_px=side_px, crop_fraction=1.0, interpolation=preprocessing.interpolation)

    def compute(missing: LabeledImages) -> Iterator[NDArray[np.uint8]]:
        return load_batches(missing.paths, lambda path: to_input(decode(missing.read(path), side_px=side_px).image, square))

    return cache.rows(images, ["canvas", f"{side_px} {preprocessing.interpolation}"], compute, description="decoding images")


# Activations (B, ...) in front of the first trained block, on the training device, by positions of images (B,) and epoch.
Inputs = Callable[[NDArray[np.int64], int], Tensor]


def make_inputs(prefix: Prefix, images: LabeledImages, *, phase: Phase, flips: bool, seed: int, device: torch.device) -> Inputs:
    """Return the inputs of a phase: one plain view without augmentation, else cached or fresh views.

    Args:
        prefix: frozen blocks.
        images: to train on.
        phase: gives the augmentation and the number of cached views.
        flips: mirror half of the augmented images.
        seed: of the run.
        device: that trains.

    Raises:
        OutOfTime: the cache's deadline passed.
    """
    if phase.augmentation == "none":
        return _cached_inputs([prefix.plain(images)], device)
    if not phase.cached_views:
        return _fresh_inputs(prefix, images, phase=phase, flips=flips, seed=seed, device=device)
    others = (prefix.view(images, view, phase=phase, flips=flips, seed=seed) for view in range(1, phase.cached_views))
    return _cached_inputs([prefix.plain(images), *others], device)


def _cached_inputs(views: Sequence[CachedRows], device: torch.device) -> Inputs:
    """A fixed number of cached views per image; an image goes through all of them before one repeats."""

    def batch(positions: NDArray[np.int64], epoch: int) -> Tensor:
        turns = (positions + epoch) % len(views)
        rows = np.stack([views[turn].at([position])[0] for turn, position in zip(turns, positions, strict=True)])
        return torch.from_numpy(rows).to(device).float()

    return batch


def _fresh_inputs(
    prefix: Prefix, images: LabeledImages, *, phase: Phase, flips: bool, seed: int, device: torch.device
) -> Inputs:
    """A new view of each image in every epoch: the frozen blocks run each time."""
    canvases, side_px = _make_canvases(images, prefix.preprocessing, prefix.cache), prefix.preprocessing.side_px
    normalize = Normalize(prefix.preprocessing).to(device)
    blocks = prefix.blocks.to(device=device, memory_format=layout_on(device)).eval()  # type: ignore[call-overload]

    @torch.no_grad()
    def batch(positions: NDArray[np.int64], epoch: int) -> Tensor:
        digests = [canvases.digests[position] for position in positions]
        parameters = view_parameters(digests, view=epoch, level=phase.augmentation, flips=flips, seed=seed)
        pixels = torch.from_numpy(canvases.at(positions)).to(device)
        views = augment(pixels, torch.from_numpy(parameters).to(device), side_px)
        activations: Tensor = blocks(normalize.planes(views.contiguous(memory_format=layout_on(device))))
        return activations

    return batch
