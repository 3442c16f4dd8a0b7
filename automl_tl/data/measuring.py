"""What the scan notes about one image: plain facts from one decoding, the same on every machine.

A small picture takes less time to decode than a few careless lines of numpy take to describe it: hence
reduced sizes, a histogram instead of passes over pixels, and whole numbers where they suffice (benchmarks/data_scan.py).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from automl_tl.data.decoding import decode

__all__ = ["MEASURE_VERSION", "measure"]

MEASURE_VERSION: Final = 5
"""Part of the cache's key: raise it whenever a fact is computed differently."""

LOOK_PX: Final = 128  # shorter side asked of the decoder, which keeps twice that
SMALL_PX: Final = 256
THUMBNAIL_SIZE: Final = (32, 32)
LEVELS: Final = np.arange(256)


def measure(data: bytes) -> dict[str, object]:
    """Fields of an ``ImageRecord`` that follow from the bytes alone.

    Raises:
        UndecodableError: the bytes are no usable image.
    """
    decoded = decode(data, side_px=LOOK_PX)
    small = _small(decoded.image)
    luma = small.convert("L")
    brightness, contrast = _mean_and_deviation(luma)
    return {
        "num_bytes": len(data),
        "width_px": decoded.width_px,
        "height_px": decoded.height_px,
        "format": decoded.format,
        "mode": decoded.mode,
        "num_frames": decoded.num_frames,
        "captured_at": decoded.captured_at,
        "camera": decoded.camera,
        "thumbnail": luma.resize(THUMBNAIL_SIZE, Image.Resampling.LANCZOS, reducing_gap=2.0).tobytes(),
        "brightness": round(brightness / 255, 4),
        "contrast": round(contrast / 255, 4),
        "colour": round(_colour(small.resize(THUMBNAIL_SIZE, Image.Resampling.NEAREST)), 4),
        "sharpness": round(_sharpness(luma), 2),
        "remarks": decoded.remarks,
    }


def _small(image: Image.Image) -> Image.Image:
    scale = SMALL_PX / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _mean_and_deviation(luma: Image.Image) -> tuple[float, float]:
    counts = np.array(luma.histogram())
    mean = float(counts @ LEVELS) / int(counts.sum())
    return mean, float(counts @ (LEVELS - mean) ** 2 / counts.sum()) ** 0.5


def _colour(image: Image.Image) -> float:
    red, green, blue = np.asarray(image).reshape(-1, 3).T
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return float(spread.mean()) / 255


def _sharpness(luma: Image.Image) -> float:
    """Variance of the Laplacian."""
    pixels = np.asarray(luma, dtype=np.int16)
    if min(pixels.shape) < 3:
        return 0.0
    around = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
    curvature = (around - 4 * pixels[1:-1, 1:-1]).astype(np.float32).ravel()
    return float(curvature @ curvature / curvature.size - curvature.mean() ** 2)
