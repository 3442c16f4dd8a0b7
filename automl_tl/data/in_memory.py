"""Images to predict as Python programs have them: paths, bytes, Pillow images, NumPy arrays, and iterables of these.

Each becomes the bytes of an image file at once, so that one decoder sees all images, and a generator may use its buffer again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from automl_tl.data.image_inputs import ImageInputs, NamedImage, find_images, reject
from automl_tl.errors import ImageValueError, SourceNotFoundError

CHANNELS: Final = (1, 3, 4)  # gray, RGB, RGB with opacity
PNG_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
TIFF_MODES: Final = ("I", "F", "CMYK", "YCbCr", "LAB")

ImageValue = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]
Images = ImageInputs | ImageValue | Iterable[ImageValue]
"""One image or several; an array may hold several, and a path may be a folder, pattern, list or archive of them."""


def open_images(images: Images) -> tuple[Iterator[NamedImage], int]:
    """Return every image with its name (its path, or ``[7]`` for the eighth if it has none), and their number, 0 if unknown.

    Iterables are consumed as the images are needed. Each item gives its images in order, so that one file is one row; a path
    among several that does not exist is a row with an error.

    Args:
        images: as in ``Images``.

    Raises:
        SourceNotFoundError: the only path does not exist.
        ImageValueError: a value is no image; raised when it is reached.
    """
    if isinstance(images, str | os.PathLike):
        images = find_images([os.fspath(images)])
    if isinstance(images, ImageInputs):
        return images.images(), len(images)
    if isinstance(images, bytes | bytearray | memoryview | Image.Image):
        return _open_each([images]), 1
    if isinstance(images, np.ndarray):
        items = images.ravel().tolist() if images.dtype.kind in "OU" else list(_single_images(images))
        return _open_each(items), len(items)
    if not isinstance(images, Iterable):
        raise _wrong_type(images)
    return _open_each(images), len(images) if isinstance(images, Sized) else 0


def _open_each(images: Iterable[Any]) -> Iterator[NamedImage]:
    number = 0
    for item in images:
        for opened in _open_item(item):
            yield opened if opened.name else NamedImage(f"[{number}]", opened.read)
            number += 1


def _open_item(item: Any) -> Iterator[NamedImage]:  # noqa: ANN401 - checked here
    """Yield the images of an item of an iterable; those in memory have no name."""
    if isinstance(item, str | os.PathLike):
        try:
            yield from find_images([os.fspath(item)]).images()
        except SourceNotFoundError:
            yield NamedImage(os.fspath(item), partial(reject, "file not found"))
        return
    for image in _single_images(item) if isinstance(item, np.ndarray) else [item]:
        try:
            yield NamedImage("", partial(bytes, encode_image(image)))
        except OSError as error:  # a damaged file, which Pillow reads only now
            yield NamedImage("", partial(reject, str(error)))


def encode_image(image: ImageValue) -> bytes:
    """Return one image as the bytes of an image file.

    Raises:
        OSError: a file that cannot be read.
        ImageValueError: it is no image, or several.
    """
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        return _encode_pillow(image)
    if not isinstance(image, np.ndarray):
        raise _wrong_type(image)
    images = list(_single_images(image))
    if len(images) != 1:
        raise ImageValueError(f"an array of shape {image.shape}", "one image: (H, W) or (H, W, C)")
    return _encode_array(images[0])


def _wrong_type(value: object) -> ImageValueError:
    return ImageValueError(
        f"{type(value).__module__}.{type(value).__qualname__}",
        "a path, the bytes of an image file, a Pillow image, a NumPy array of uint8, or an iterable of these",
    )


def _single_images(array: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    """Yield the images ``(H, W)`` or ``(H, W, C)`` of one image or a batch; nothing is guessed."""
    shape = array.shape
    if array.dtype != np.uint8:
        scaled = "(255 * array).round().astype('uint8') if it is 0 to 1"
        raise ImageValueError(f"an array of {array.dtype}", f"uint8, 0 to 255; convert it, e.g. {scaled}")
    if array.ndim not in (2, 3, 4) or 0 in shape[1 if array.ndim > 2 else 0 :]:
        raise ImageValueError(f"an array of shape {shape}", "(H, W), (H, W, C), (N, H, W) or (N, H, W, C)")
    if array.ndim == 2 or (array.ndim == 3 and shape[-1] in CHANNELS):
        yield array
    elif (array.ndim == 4 and shape[-1] in CHANNELS) or (array.ndim == 3 and shape[0] not in CHANNELS):
        yield from array
    else:
        advice = "if channels come first, use np.moveaxis(array, -3, -1); if it is a batch of gray images, array[..., None]"
        raise ImageValueError(f"an array of shape {shape}", f"1, 3 or 4 channels last: {advice}")


def _encode_array(array: NDArray[np.uint8]) -> bytes:
    """Encode ``(H, W)`` or ``(H, W, C)`` as an image file, without compression where possible."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 3 and array.shape[2] == 4:
        return _encode_pillow(Image.fromarray(np.ascontiguousarray(array)))
    kind = "P5" if array.ndim == 2 else "P6"  # PGM or PPM
    return f"{kind} {array.shape[1]} {array.shape[0]} 255\n".encode() + array.tobytes()


def _encode_pillow(image: Image.Image) -> bytes:
    """Encode an image without loss, turned upright; ``OSError`` if it is a file that cannot be read."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("L", "RGB") and "transparency" not in upright.info:
        return _encode_array(np.asarray(upright))
    if upright.mode not in PNG_MODES + TIFF_MODES:
        upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    file = BytesIO()
    if upright.mode in TIFF_MODES:
        upright.save(file, "TIFF")
    else:
        upright.save(file, "PNG", compress_level=1)
    return file.getvalue()
