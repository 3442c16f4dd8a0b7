"""What the scan notes about one image: plain facts from one decoding, the same on every machine."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from automl_tl.data.decoding import decode

__all__ = ["MEASURE_VERSION", "measure"]

MEASURE_VERSION: Final = 2
"""Part of the cache's key: raise it whenever a fact is computed differently."""

LOOK_PX: Final = 128  # shorter side asked of the decoder, which keeps twice that
SMALL_PX: Final = 256
THUMBNAIL_PX: Final = 32


def measure(data: bytes) -> dict[str, object]:
    """Fields of an ``ImageRecord`` that follow from the bytes alone.

    Raises:
        UndecodableError: the bytes are no usable image.
    """
    decoded = decode(data, side_px=LOOK_PX)
    small = _small(decoded.image)
    luma = small.convert("L")
    pixels = np.asarray(luma, dtype=np.float32)
    return {
        "num_bytes": len(data),
        "width_px": decoded.width_px,
        "height_px": decoded.height_px,
        "format": decoded.format,
        "mode": decoded.mode,
        "num_frames": decoded.num_frames,
        "captured_at": decoded.captured_at,
        "camera": decoded.camera,
        "thumbnail": luma.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS).tobytes(),
        "brightness": round(float(pixels.mean()) / 255, 4),
        "contrast": round(float(pixels.std()) / 255, 4),
        "colour": round(_colour(small), 4),
        "sharpness": round(_sharpness(pixels), 2),
        "remarks": decoded.remarks,
    }


def _small(image: Image.Image) -> Image.Image:
    scale = SMALL_PX / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _colour(image: Image.Image) -> float:
    channels = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float32)
    return float((channels.max(axis=2) - channels.min(axis=2)).mean()) / 255


def _sharpness(pixels: NDArray[np.float32]) -> float:
    if min(pixels.shape) < 3:
        return 0.0
    around = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
    return float((around - 4 * pixels[1:-1, 1:-1]).var())
