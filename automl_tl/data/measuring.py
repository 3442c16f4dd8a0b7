"""What the scan notes about one image: plain facts from one decoding, the same on every machine.

A small picture takes less time to decode than a few careless lines of numpy take to describe it: hence reduced sizes, and
several pictures of one size at a time. All sums are of whole numbers and exact, so that the company a picture is described
in makes no difference (benchmarks/data_scan.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from automl_tl.data.decoding import decode
from automl_tl.data.thumbnails import thumbnails

__all__ = ["MEASURE_VERSION", "Seen", "describe", "measure", "see"]

MEASURE_VERSION: Final = 6
"""Part of the cache's key: raise it whenever a fact is computed differently."""

LOOK_PX: Final = 128  # shorter side asked of the decoder, which keeps twice that
SMALL_PX: Final = 256
COLOR_PX: Final = 32
BLOCK_PIXELS: Final = 2**17  # described at a time: that much stays in a processor's cache
LUMA: Final = np.array([19595, 38470, 7471], dtype=np.float32)  # of 2**16
GIVEN: Final = ("width_px", "height_px", "format", "mode", "num_frames", "captured_at", "camera", "remarks")


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture that was decoded and is still to be described."""

    facts: dict[str, object]  # that needed no look at the pixels
    pixels: NDArray[np.uint8]  # (H, W, 3), at most 256 px long


def see(data: bytes) -> Seen:
    """The picture in ``data``, small.

    Raises:
        UndecodableError: the bytes are no usable image.
    """
    decoded = decode(data, side_px=LOOK_PX)
    facts = {"num_bytes": len(data), **{name: getattr(decoded, name) for name in GIVEN}}
    is_small = max(decoded.width_px, decoded.height_px) <= SMALL_PX
    return Seen(facts, decoded.pixels if is_small else np.asarray(_small(decoded.image)))


def describe(pictures: Sequence[Seen]) -> list[dict[str, object]]:
    """Fields of an ``ImageRecord`` that follow from the bytes alone, of each picture."""
    looks: dict[int, dict[str, object]] = {}
    for block in _blocks_of_one_size(pictures):
        looks |= zip(block, _looks(np.stack([pictures[at].pixels for at in block])), strict=True)
    return [{**picture.facts, **looks[at]} for at, picture in enumerate(pictures)]


def measure(data: bytes) -> dict[str, object]:
    """Fields of an ``ImageRecord`` that follow from the bytes alone.

    Raises:
        UndecodableError: the bytes are no usable image.
    """
    return describe([see(data)])[0]


def _small(image: Image.Image) -> Image.Image:
    scale = SMALL_PX / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _blocks_of_one_size(pictures: Sequence[Seen]) -> Iterator[list[int]]:
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for at, picture in enumerate(pictures):
        by_shape[picture.pixels.shape].append(at)
    for (height, width, _), members in by_shape.items():
        at_once = max(1, BLOCK_PIXELS // (width * height))
        for start in range(0, len(members), at_once):
            yield members[start : start + at_once]


def _looks(pixels: NDArray[np.uint8]) -> Iterator[dict[str, object]]:
    """How pictures of one size look: ``pixels (N, H, W, 3)``."""
    lumas = _lumas(pixels)
    brightness, contrast = _means_and_deviations(lumas)
    sharpness, color, small = _sharpness(lumas), _color(pixels), thumbnails(lumas)
    for at in range(len(pixels)):
        yield {
            "thumbnail": small[at].tobytes(),
            "brightness": round(float(brightness[at]) / 255, 4),
            "contrast": round(float(contrast[at]) / 255, 4),
            "color": round(float(color[at]) / 255, 4),
            "sharpness": round(float(sharpness[at]), 2),
        }


def _lumas(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``(N, H, W)``, as ``Image.convert("L")`` would: ITU-R BT.601 in whole numbers, which are exact as all are below 2**24."""
    levels = pixels.reshape(-1, 3).astype(np.float32) @ LUMA
    levels += 2**15
    levels *= 2**-16
    return levels.astype(np.uint8).reshape(pixels.shape[:-1])


def _means_and_deviations(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each of ``pixels (N, H, W)``, at most 256 wide: the squares of a row add up to less than 2**24."""
    exact = pixels.astype(np.float32)
    number = pixels.shape[1] * pixels.shape[2]
    total = exact.sum(axis=2).sum(axis=1, dtype=np.float64)
    squares = np.einsum("nhw,nhw->nh", exact, exact).sum(axis=1, dtype=np.float64)
    deviation: NDArray[np.float64] = np.sqrt(number * squares - total * total) / number
    return total / number, deviation


def _color(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean distance between the highest and the lowest channel, ``(N,)``, of 32 x 32 pixels that are spread evenly."""
    _, height, width, _ = pixels.shape
    some = pixels.take(_evenly(height), axis=1).take(_evenly(width), axis=2)
    red, green, blue = some.reshape(len(pixels), -1, 3).transpose(2, 0, 1)
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return np.asarray(spread.mean(axis=1), dtype=np.float64)


@lru_cache(maxsize=SMALL_PX)
def _evenly(length: int) -> NDArray[np.intp]:
    return ((np.arange(COLOR_PX) + 0.5) * length / COLOR_PX).astype(np.intp)


def _sharpness(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Variance of the Laplacian of each of ``pixels (N, H, W)``; 0 where there is no inside."""
    number, height, width = pixels.shape
    if min(width, height) < 3:
        return np.zeros(number)
    # All rows of a picture in one, so that every sum runs over memory as it lies; what wraps around is cut off.
    rows = pixels.reshape(number, -1).astype(np.int16)
    curvature = rows[:, width:-width] * np.int16(-4)
    for start in (0, 2 * width, width - 1, width + 1):
        curvature += rows[:, start : start + curvature.shape[1]]
    inside = curvature.reshape(number, height - 2, width)[:, :, 1:-1].astype(np.float64).reshape(number, -1)
    mean_of_squares = np.einsum("ni,ni->n", inside, inside) / inside.shape[1]
    return np.asarray(mean_of_squares - inside.mean(axis=1) ** 2)
