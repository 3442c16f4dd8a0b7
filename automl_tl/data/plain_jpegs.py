"""Small plain JPEGs, decoded without Pillow, whose own work on a picture of 64 px takes longer than the pixels do.

Plain is what tells nothing beside its pixels: no EXIF, no XMP, one picture, gray or YCbCr, and not a word of complaint from
the decoder. All else is Pillow's. Both decode with libjpeg-turbo, so the pixels are the same (a test compares them).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from simplejpeg import decode_jpeg, decode_jpeg_header

__all__ = ["plain_jpeg"]

START: Final = b"\xff\xd8\xff"
MORE_THAN_PIXELS: Final = (b"Exif\0", b"MPF\0", b"ns.adobe.com/xap/")  # anywhere; one too many only costs time
MODES: Final = {"Gray": "L", "YCbCr": "RGB"}  # as Pillow names them
MOST_BYTES: Final = 2**18
MOST_PIXELS: Final = 2**18  # above that the pixels take the time


def plain_jpeg(data: bytes, most_px: float) -> tuple[NDArray[np.uint8], str] | None:
    """Pixels ``(H, W, 3)``, RGB, and the mode they are stored in; ``None`` if ``data`` is not a small plain JPEG.

    Args:
        data: the encoded bytes of one file.
        most_px: shorter side up to which a picture is wanted in full.
    """
    if not data.startswith(START) or len(data) > MOST_BYTES or any(mark in data for mark in MORE_THAN_PIXELS):
        return None
    try:
        height, width, colors, _ = decode_jpeg_header(data)
        if colors not in MODES or width * height > MOST_PIXELS or min(width, height) > most_px:
            return None
        return decode_jpeg(data), MODES[colors]  # strict: what could be damaged is an error
    except ValueError:
        return None
