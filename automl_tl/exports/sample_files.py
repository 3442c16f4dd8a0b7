"""Image files of the kinds that programs decode differently, so that an export is verified from files, not from pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import cycle
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from automl_tl.data.colors import ORIENTATION

Encode = Callable[[Image.Image], bytes]
ENLARGED: Final = 5  # times; a decoder reduces a JPEG from four times the needed size on
TURNED: Final = 6  # EXIF orientation of a camera held upright


def sample_files(images: Sequence[NDArray[np.uint8]]) -> list[bytes]:
    """Return one image file of every kind in ``KINDS``.

    Args:
        images: at least one, ``(H, W, 3)`` RGB; each is used in turn.
    """
    return [encode(Image.fromarray(image)) for encode, image in zip(KINDS.values(), cycle(images), strict=False)]


def _saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    image.save(file := BytesIO(), file_format, **options)
    return file.getvalue()


def _translucent(image: Image.Image) -> bytes:
    levels = np.linspace(0, 255, image.width * image.height).reshape(image.height, image.width)
    image.putalpha(Image.fromarray(levels.astype(np.uint8)))
    return _saved(image, "PNG")


def _deep(image: Image.Image) -> bytes:
    levels = np.asarray(image.convert("L")).astype(np.uint16)
    return _saved(Image.fromarray(7000 + 150 * levels + levels % 7), "PNG")


def _floats(image: Image.Image) -> bytes:
    return _saved(Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) * 3.7 - 100), "TIFF")


def _turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    return _saved(image, "JPEG", quality=95, exif=exif)


def _enlarged(image: Image.Image) -> bytes:
    return _saved(image.resize((ENLARGED * image.width, ENLARGED * image.height)), "JPEG", quality=90)


KINDS: Final[dict[str, Encode]] = {
    "RGB": lambda image: _saved(image, "PNG"),
    "translucent": _translucent,
    "palette with a transparent color": lambda image: _saved(image.quantize(16), "PNG", transparency=0),
    "16-bit gray": _deep,
    "floats": _floats,
    "turned by EXIF": _turned,
    "CMYK": lambda image: _saved(image.convert("CMYK"), "JPEG", quality=95),
    "much larger than the input": _enlarged,
}
