"""From encoded bytes to an upright RGB image, and from that to a network's input. The only place that decodes.

Scan, training and prediction all come through here, so that they see the same pixels. No torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from automl_tl.data.color import to_rgb
from automl_tl.data.image_formats import describe, is_heif
from automl_tl.data.jpeg_watch import WatchedJpeg
from automl_tl.errors import UndecodableError
from automl_tl.values import Preprocessing

__all__ = ["DAMAGED", "MAX_PIXELS", "Decoded", "UndecodableError", "decode", "quiet_pillow", "to_input"]

# Pillow warns from this size on (a quarter of a GiB as RGB); nothing larger is ever decoded in full.
MAX_PIXELS: Final = 89_478_485
# Photographs of 200 megapixels exist. A JPEG is decoded at 1/2 to 1/8 size; a progressive one keeps all its coefficients.
MAX_JPEG_PIXELS: Final = 256_000_000

DAMAGED: Final = "damaged inside"
"""Remark on an image that a decoder gave although its data is damaged."""

# Threads decode one image above this size at a time, so that memory is bounded whatever their number.
GIANT_PIXELS: Final = 24_000_000
_one_giant_at_a_time = Lock()

# No plugin that runs another program (EPS), none that takes any bytes for an image (TGA).
FORMATS: Final = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO", "PCX", "SGI")
JPEGS: Final = ("JPEG", "MPO")
INTERPOLATIONS: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
EXIF_ORIENTATION, EXIF_MAKE, EXIF_MODEL, EXIF_IFD, EXIF_TAKEN = 0x0112, 0x010F, 0x0110, 0x8769, 0x9003


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright RGB image and what was found on the way. Sizes are those of the whole image, upright."""

    image: Image.Image
    width_px: int
    height_px: int
    format: str
    mode: str
    num_frames: int
    captured_at: datetime | None
    camera: str | None
    remarks: tuple[str, ...]


def decode(data: bytes, *, side_px: int | None = None) -> Decoded:
    """Upright RGB image of ``data``: EXIF turn applied, transparency on white, deep pixels scaled, first frame.

    Deterministic. Memory is bounded by ``MAX_PIXELS``: larger images are refused by their declared size, unread.

    Args:
        data: the encoded bytes of one file.
        side_px: shorter side that is wanted; an image more than twice as large is made smaller while it is decoded, but
            never below twice the wanted side. Absent: full size.

    Raises:
        UndecodableError: with a stable ``reason`` (empty, truncated, not_an_image, damaged, too_many_pixels,
            needs_plugin, unsupported) and a ``detail``.
    """
    if not data:
        raise UndecodableError("empty", "the file has 0 bytes")
    try:
        return _decode(data, side_px)
    except UndecodableError:
        raise
    except MemoryError as error:
        raise UndecodableError("too_many_pixels", "there is not enough memory to decode it") from error
    except Exception as error:  # third-party decoders on foreign bytes raise anything
        raise UndecodableError(*_diagnosis(error, data)) from error


def to_input(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Pixels ``(side_px, side_px, 3)``, 0 to 255: the shorter side scaled, the center taken, in one resize.

    Only the center square is ever resized, so an image of 4000 x 3 pixels costs no more than one of 3 x 3.
    """
    side, crop = preprocessing.side_px, preprocessing.crop_fraction
    square = min(image.size) * crop
    left, top = (image.width - square) / 2, (image.height - square) / 2
    box = (left, top, left + square, top + square)
    return np.asarray(image.resize((side, side), INTERPOLATIONS[preprocessing.interpolation], box=box))


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """No warnings from Pillow inside: what they would say is in the remarks. Enter it before threads start."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _decode(data: bytes, side_px: int | None) -> Decoded:
    image = _open(data)
    mode, format_name, num_frames = image.mode, image.format or "?", _num_frames(image, len(data))
    width, height = image.size
    _draft(image, side_px)
    _refuse_bombs(image, width, height)
    if watched := WatchedJpeg(data) if image.format in JPEGS else None:
        image.fp = watched  # only now: headers are read in dozens of small pieces
    with _one_giant_at_a_time if image.width * image.height > GIANT_PIXELS else nullcontext():
        image.load()
        orientation, captured_at, camera = _exif(image)
        rgb, remarks = to_rgb(_reduced(image, side_px))
    if watched and watched.left_over:
        remarks = (*remarks, DAMAGED)
    if orientation in TURNS:
        rgb = rgb.transpose(TURNS[orientation])
        remarks = (f"turned upright by EXIF ({orientation})", *remarks)
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    if num_frames > 1:
        remarks = (*remarks, f"first frame (of {num_frames})")
    return Decoded(rgb, width, height, format_name, mode, num_frames, captured_at, camera, remarks)


def _open(data: bytes) -> ImageFile.ImageFile:
    # Not Image.open: its size check depends on a global that belongs to the user's program and refuses large JPEGs.
    if is_heif(data):
        _register_heif()
    Image.init()
    stream = BytesIO(data)
    for name in (*FORMATS, "HEIF"):
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory and (accept is None or accept(data[:16].ljust(16, b"\0")) is True):
            stream.seek(0)
            try:
                return factory(stream, "")
            except SyntaxError:  # Pillow's word for: not mine
                continue
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        raise UndecodableError("needs_plugin", "an AVIF image, which this Pillow was built without; `pip install -U pillow`")
    raise UndecodableError("not_an_image", describe(data))


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        advice = "an HEIC photograph; `pip install automl-tl[heic]` lets it be read"
        raise UndecodableError("needs_plugin", advice) from error
    register_heif_opener()


def _draft(image: ImageFile.ImageFile, side_px: int | None) -> None:
    if image.format not in JPEGS:
        return
    shrink = min(image.size) / (2 * side_px) if side_px else 1.0
    shrink = max(shrink, (image.width * image.height / MAX_PIXELS) ** 0.5)
    if shrink > 1:
        image.draft(None, (int(image.width / shrink), int(image.height / shrink)))


def _reduced(image: Image.Image, side_px: int | None) -> Image.Image:
    factor = min(image.size) // (2 * side_px) if side_px else 1
    plain = image.mode in ("L", "RGB", "RGBA", "CMYK") and "transparency" not in image.info
    return image.reduce(factor) if factor > 1 and plain else image


def _refuse_bombs(image: ImageFile.ImageFile, width: int, height: int) -> None:
    limit = MAX_JPEG_PIXELS if image.format in JPEGS else MAX_PIXELS
    if width * height > limit or image.width * image.height > MAX_PIXELS:
        found = f"{width} x {height} px = {width * height / 1e6:.0f} million pixels"
        raise UndecodableError("too_many_pixels", f"{found}, at most {limit / 1e6:.0f} million are decoded; scale it down")


def _num_frames(image: ImageFile.ImageFile, num_bytes: int) -> int:
    # Counting walks through the whole file; a crafted one holds millions of frames, so a long one is only asked for two.
    if num_bytes > 8_000_000:
        return 2 if getattr(image, "is_animated", False) else 1
    return int(getattr(image, "n_frames", 1))


def _exif(image: Image.Image) -> tuple[int, datetime | None, str | None]:
    """Orientation (1 to 8), time and camera; unreadable EXIF is no EXIF."""
    try:
        exif = image.getexif()
        if not exif:
            return 1, None, None
        orientation = exif.get(EXIF_ORIENTATION, 1)
        taken = exif.get_ifd(EXIF_IFD).get(EXIF_TAKEN)
        camera = " ".join(str(exif[tag]).strip("\0 ") for tag in (EXIF_MAKE, EXIF_MODEL) if exif.get(tag))
    except Exception:  # EXIF is written by anything, and Pillow raises anything on it
        return 1, None, None
    return orientation if orientation in TURNS else 1, _time(taken), camera[:100] or None


def _time(text: object) -> datetime | None:
    try:
        return datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None


def _diagnosis(error: Exception, data: bytes) -> tuple[str, str]:
    text = str(error) or type(error).__name__
    if "runcated" in text or isinstance(error, EOFError):
        return "truncated", f"it ends too early, after {len(data):,} bytes ({text})"
    if isinstance(error, Image.DecompressionBombError):
        return "too_many_pixels", text
    return "damaged", text
