"""Facts about one image that the scan records, from one decoding, the same on every machine.

Images are measured at reduced size: decoding a small image takes less time than careless numpy on all its pixels. All sums
are of whole numbers and exact (benchmarks/data_scan.py).
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from automl_tl.data.decoding import decode

__all__ = ["MEASURE_VERSION", "measure", "thumbnail"]

MEASURE_VERSION: Final = 6
"""Part of the cache's key: raise it whenever a fact is computed differently."""

DECODED_PX: Final = 128  # shorter side asked of the decoder, which keeps twice that
SMALL_PX: Final = 256
COLOR_PX: Final = 32
THUMBNAIL_PX: Final = 32
REDUCING_GAP: Final = 2.0  # times the wanted size: a larger image is first averaged down to that
LANCZOS_LOBES: Final = 3.0
WEIGHT_UNIT: Final = 2.0**-20  # two weights (1.5 at most per row, in sum) and 8 bits: 50 of the 53 bits of a float
LUMA: Final = np.array([19595, 38470, 7471], dtype=np.float32)  # of 2**16
COPIED: Final = ("width_px", "height_px", "format", "mode", "num_frames", "captured_at", "camera", "remarks")


def measure(data: bytes) -> dict[str, object]:
    """Fields of an ``ImageRecord`` that follow from the bytes alone.

    Raises:
        UndecodableError: the bytes are no usable image.
    """
    decoded = decode(data, side_px=DECODED_PX)
    is_small = max(decoded.width_px, decoded.height_px) <= SMALL_PX
    pixels = np.asarray(decoded.image if is_small else _small(decoded.image))
    luma = _luma(pixels)
    brightness, contrast = _mean_and_deviation(luma)
    return {
        "num_bytes": len(data),
        **{name: getattr(decoded, name) for name in COPIED},
        "thumbnail": thumbnail(luma).tobytes(),
        "brightness": round(brightness / 255, 4),
        "contrast": round(contrast / 255, 4),
        "color": round(_color(pixels) / 255, 4),
        "sharpness": round(_sharpness(luma), 2),
    }


def thumbnail(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a ``(32, 32)`` thumbnail of ``luma (H, W)``: Pillow's LANCZOS with ``reducing_gap=2.0``, without its rounding.

    Pillow rounds between rows and columns in an order that depends on its version. Here the weights are whole multiples of
    2**-20, so that all sums are exact and the same on every machine, and rounding comes last.
    """
    height, width = luma.shape
    # 1. Average a larger image down to at most four times the size, as Pillow's reducing_gap does.
    across, down = (int(length / THUMBNAIL_PX / REDUCING_GAP) or 1 for length in (width, height))
    if across > 1 or down > 1:
        luma = np.asarray(Image.fromarray(luma).reduce((across, down)))
    # 2. Resample rows, then columns.
    rows = np.clip(luma.astype(np.float64) @ _lanczos_weights(width, across).T, 0.0, 255.0)
    return np.asarray(np.clip(_lanczos_weights(height, down) @ rows, 0.0, 255.0) + 0.5).astype(np.uint8)


@lru_cache(maxsize=1024)  # 32 x 128 numbers at most; a scan sees at most 256 lengths
def _lanczos_weights(length: int, factor: int) -> NDArray[np.float64]:
    """``(32, M)``: weights of the ``M`` pixels that remain of ``length`` after averaging by ``factor``, per result."""
    pixels, scale = ceil(length / factor), length / factor / THUMBNAIL_PX
    reach = LANCZOS_LOBES * max(scale, 1.0)
    weights = np.zeros((THUMBNAIL_PX, pixels))
    for at in range(THUMBNAIL_PX):
        center = (at + 0.5) * scale
        first, last = max(int(center - reach + 0.5), 0), min(int(center + reach + 0.5), pixels)
        away = (np.arange(first, last) + 0.5 - center) / reach  # -1 to 1
        row = np.sinc(away * LANCZOS_LOBES) * np.sinc(away)
        weights[at, first:last] = np.rint(row / row.sum() / WEIGHT_UNIT) * WEIGHT_UNIT
    return weights


def _small(image: Image.Image) -> Image.Image:
    scale = SMALL_PX / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``(H, W)``, as ``Image.convert("L")`` would: ITU-R BT.601 in whole numbers, which are exact as all are below 2**24."""
    levels = pixels.reshape(-1, 3).astype(np.float32) @ LUMA
    levels += 2**15
    levels *= 2**-16
    return levels.astype(np.uint8).reshape(pixels.shape[:-1])


def _mean_and_deviation(luma: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and standard deviation of ``luma (H, W)``, from exact sums."""
    levels, number = luma.astype(np.int64), luma.size
    total, squares = int(levels.sum()), int((levels * levels).sum())
    return total / number, float(np.sqrt(float(number * squares - total * total))) / number


def _color(pixels: NDArray[np.uint8]) -> float:
    """Mean distance between the highest and the lowest channel of 32 x 32 pixels that are spread evenly."""
    height, width, _ = pixels.shape
    grid = pixels[_evenly(height)][:, _evenly(width)]
    return float((grid.max(axis=-1) - grid.min(axis=-1)).mean())


@lru_cache(maxsize=SMALL_PX)
def _evenly(length: int) -> NDArray[np.intp]:
    return ((np.arange(COLOR_PX) + 0.5) * length / COLOR_PX).astype(np.intp)


def _sharpness(luma: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of ``luma (H, W)``; 0 for an image without interior pixels."""
    if min(luma.shape) < 3:
        return 0.0
    levels = luma.astype(np.int16)
    inside = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:] - 4 * levels[1:-1, 1:-1]
    curvature = inside.astype(np.float64).ravel()
    return float(np.einsum("i,i->", curvature, curvature) / curvature.size - curvature.mean() ** 2)
