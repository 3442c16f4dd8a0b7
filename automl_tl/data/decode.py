"""Decode encoded bytes into an upright 8-bit RGB image, and resize that to a network's input. The only place that decodes.

The scan, training and prediction all decode here, so that they see the same pixels. No torch.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from io import BytesIO
from threading import Lock
from typing import Final, final
from zlib import crc32

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from automl_tl.data.colors import (
    COLORS_VERSION,
    FORMATS,
    JPEGS,
    MAX_PIXELS,
    PNG_MAGIC,
    TRANSPOSES,
    UnsupportedColorsError,
    draft,
    orientation_of,
    png_chunks,
    reduced,
    to_rgb,
    upright,
    without_metadata,
)
from automl_tl.data.image_formats import HEAD_BYTES, describe, is_heif, looks_like_image
from automl_tl.errors import UndecodableError
from automl_tl.values import Preprocessing

__all__ = ["DAMAGED", "DECODER", "MAX_PIXELS", "Decoded", "UndecodableError", "decode", "quiet_pillow", "to_input"]

DECODER: Final = f"pillow {PIL.__version__}, colors {COLORS_VERSION}"
"""Part of the keys of caches: another decoder gives other pixels."""

# Photographs of 200 megapixels exist. A JPEG is decoded at 1/2 to 1/8 size; a progressive one keeps all its coefficients.
MAX_JPEG_PIXELS: Final = 256_000_000

NO_METADATA: Final = "metadata skipped (damaged or too large)"
"""Remark on an image that was decoded without its text, color profile and the like."""

DAMAGED: Final = "damaged inside"
"""Remark on an image that was decoded although its data is damaged."""

# Threads decode one image above this size at a time, so that memory is bounded for any number of threads.
GIANT_PIXELS: Final = 24_000_000
_giant_lock = Lock()

EXIF_MAKE, EXIF_MODEL, EXIF_IFD, EXIF_DATE_TIME_ORIGINAL = 0x010F, 0x0110, 0x8769, 0x9003
TIFF_MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFF_ADVICE: Final = "save it as PNG, or as TIFF with gray 8-bit, 16-bit or 32-bit pixels or RGB of 8 or 16 bits"
NOT_SUPPORTED: Final = re.compile("unsupported|not supported|cannot handle|can't handle", re.IGNORECASE)
JPEG_MAGIC, JPEG_END, JPEG_SCAN = b"\xff\xd8\xff", b"\xff\xd9", 0xDA
LAST_BYTES: Final = 8  # of a JPEG's data: an intact one is read up to there


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright RGB image, possibly reduced, and facts about the whole image; sizes are upright."""

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
    """Decode an image file: EXIF orientation applied, transparency on white, deep pixels scaled (``colors``), first frame.

    Deterministic. Larger images than ``MAX_PIXELS`` are refused by their declared size, before memory is allocated.

    Args:
        data: the encoded bytes of one file.
        side_px: wanted length of the shorter side; an image more than twice as large is reduced while it is decoded, but
            never below twice the wanted length. Default: full size.

    Raises:
        UndecodableError: with a stable ``reason`` (empty, truncated, not_an_image, damaged, too_many_pixels,
            needs_plugin, unsupported) and a ``detail``.
    """
    if not data:
        raise UndecodableError("empty", "the file has 0 bytes")
    try:
        return _decode_png(data, side_px) if data.startswith(PNG_MAGIC) else _decode(data, side_px)
    except UndecodableError:
        raise
    except MemoryError as error:
        raise UndecodableError("too_many_pixels", "there is not enough memory to decode it") from error
    except Exception as error:  # third-party decoders raise anything on foreign bytes
        raise UndecodableError(*_diagnosis(error, data)) from error


def to_input(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize the shorter side and crop the center in one step.

    Args:
        image: RGB; an image of 4000 x 3 pixels costs no more than one of 3 x 3, as only the square is resized.
        preprocessing: size, crop and interpolation of the network.

    Returns:
        ``(side_px, side_px, 3)``, uint8.
    """
    side, crop = preprocessing.side_px, preprocessing.crop_fraction
    square = min(image.size) * crop
    left, top = (image.width - square) / 2, (image.height - square) / 2
    box = (left, top, left + square, top + square)
    interpolation = Image.Resampling[preprocessing.interpolation.upper()]
    return np.asarray(image.resize((side, side), interpolation, box=box))


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings, which the remarks replace. Enter before threads start."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _decode_png(data: bytes, side_px: int | None) -> Decoded:
    """Decode a PNG; without its text, profile and private chunks if these make it fail."""
    try:
        decoded = _decode(data, side_px)
        return replace(decoded, remarks=(*decoded.remarks, DAMAGED)) if _has_damaged_pixels(data) else decoded
    except MemoryError:
        raise
    except Exception as error:
        bare = without_metadata(data)
        if len(bare) == len(data) or (isinstance(error, UndecodableError) and error.reason != "damaged"):
            raise
        try:
            decoded = _decode(bare, side_px)
        except Exception:  # it was not the metadata
            raise error from None
        return replace(decoded, remarks=(*decoded.remarks, NO_METADATA))


def _has_damaged_pixels(png: bytes) -> bool:
    """Whether a checksum of pixel data is wrong, which Pillow does not check."""
    chunks = (chunk for chunk in png_chunks(png) if chunk[4:8] == b"IDAT")
    return any(crc32(memoryview(chunk)[4:-4]) != int.from_bytes(chunk[-4:], "big") for chunk in chunks)


def _decode(data: bytes, side_px: int | None) -> Decoded:
    watched = _WatchedJpeg(data) if data.startswith(JPEG_MAGIC) else None
    image = _open(data, watched or BytesIO(data))
    mode, format_name, num_frames = image.mode, image.format or "?", _num_frames(image, len(data))
    width, height = image.size
    draft(image, side_px)
    _refuse_bombs(image, width, height)
    with _giant_lock if image.width * image.height > GIANT_PIXELS else nullcontext():
        rgb, remarks = to_rgb(image, lambda: _open(data, BytesIO(data)), lambda loaded: reduced(loaded, side_px))
        orientation, (captured_at, camera) = orientation_of(image), _exif(image)
    if watched and watched.stopped_early:
        remarks = (*remarks, DAMAGED)
    if orientation in TRANSPOSES:
        rgb = upright(rgb, orientation)
        remarks = (f"turned upright by EXIF ({orientation})", *remarks)
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    if num_frames > 1:
        remarks = (*remarks, f"first frame (of {num_frames})")
    return Decoded(rgb, width, height, format_name, mode, num_frames, captured_at, camera, remarks)


def _open(data: bytes, stream: BytesIO) -> ImageFile.ImageFile:
    # Image.open refuses large JPEGs, at a limit that is a global variable of the user's program.
    if is_heif(data):
        _register_heif()
    Image.init()
    problem = ""
    for name in (*FORMATS, "HEIF"):
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory and (accept is None or accept(data[:16].ljust(16, b"\0")) is True):
            stream.seek(0)
            try:
                return factory(stream, "")
            except SyntaxError as error:  # how Pillow's plugins reject a file
                problem = problem or f"{name}: {error}"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        raise UndecodableError("needs_plugin", "an AVIF image, which this Pillow was built without; `pip install -U pillow`")
    if data.startswith(TIFF_MAGIC):
        raise UndecodableError("unsupported", f"a TIFF that is not read ({_describe_tiff(data) or problem}); {TIFF_ADVICE}")
    if problem and looks_like_image(data[:HEAD_BYTES]):
        unsupported = NOT_SUPPORTED.search(problem)
        raise UndecodableError(*_diagnosis(SyntaxError(problem if unsupported else f"damaged header ({problem})"), data))
    raise UndecodableError(*describe(data))


def _describe_tiff(data: bytes) -> str:
    """The kind of pixels in a TIFF; ``""`` if its header is damaged."""
    try:
        header = data[: 16 if data[2:4] in (b"+\0", b"\0+") else 8]
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream = BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        bits = tags[TiffImagePlugin.BITSPERSAMPLE]
        kind = {2: "signed whole numbers", 3: "floats"}.get(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0], "whole numbers")
        channels = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
        return f"{channels} channel{'s' * (channels > 1)} of {bits[0]}-bit {kind}"
    except Exception:  # third-party parser of a file that it could not open
        return ""


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        advice = "an HEIC photograph; `pip install automl-tl[heic]` lets it be read"
        raise UndecodableError("needs_plugin", advice) from error
    register_heif_opener()


def _refuse_bombs(image: ImageFile.ImageFile, width: int, height: int) -> None:
    limit = MAX_JPEG_PIXELS if image.format in JPEGS else MAX_PIXELS
    if width * height > limit or image.width * image.height > MAX_PIXELS:
        size = f"{width} x {height} px = {width * height / 1e6:.0f} million pixels"
        raise UndecodableError("too_many_pixels", f"{size}, at most {limit / 1e6:.0f} million are decoded; scale it down")


def _num_frames(image: ImageFile.ImageFile, num_bytes: int) -> int:
    # Counting reads the whole file; a crafted one holds millions of frames, so a long one is only checked for a second frame.
    if num_bytes > 8_000_000:
        return 2 if getattr(image, "is_animated", False) else 1
    return int(getattr(image, "n_frames", 1))


def _exif(image: Image.Image) -> tuple[datetime | None, str | None]:
    """Time and camera; unreadable EXIF counts as none."""
    try:
        exif = image.getexif()
        if not exif:
            return None, None
        captured_at = exif.get_ifd(EXIF_IFD).get(EXIF_DATE_TIME_ORIGINAL)
        camera = " ".join(str(exif[tag]).strip("\0 ") for tag in (EXIF_MAKE, EXIF_MODEL) if exif.get(tag))
    except Exception:  # EXIF is written by any program, and Pillow raises anything on it
        return None, None
    return _time(captured_at), camera[:100] or None


def _time(text: object) -> datetime | None:
    try:
        return datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None


def _diagnosis(error: Exception, data: bytes) -> tuple[str, str]:
    text = str(error) or type(error).__name__
    if isinstance(error, UnsupportedColorsError):
        return "unsupported", text
    if NOT_SUPPORTED.search(text):
        return "unsupported", f"an image of a kind that is not read ({text}); convert it to PNG"
    if "runcated" in text or isinstance(error, EOFError):
        return "truncated", f"it ends too early, after {len(data):,} bytes ({text})"
    if isinstance(error, Image.DecompressionBombError):
        return "too_many_pixels", text
    return "damaged", text


# -------------------------------------------------------------------------------------------------------------- damage


@final
class _WatchedJpeg(BytesIO):
    """The bytes of a JPEG, recording whether the decoder needed the last ones.

    A changed byte desynchronizes the decoder, which then nearly always finishes before the data ends and returns noise without
    an error. Of 182 flower photographs with 20 overwritten bytes that Pillow decoded, 95% were detected so.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        scan = _first_scan(data)
        end = data.find(JPEG_END, scan) if scan else -1
        self._boundary = max(0, end - LAST_BYTES)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, but never across the boundary in one call."""
        left = self._boundary - self.tell()
        if left > 0 and (size is None or size < 0 or size > left):
            size = left
        return super().read(size)

    @property
    def stopped_early(self) -> bool:
        """Whether decoding ended before the last bytes of the image's data."""
        return 0 < self.tell() <= self._boundary


def _first_scan(data: bytes) -> int:
    """Offset of the first scan, found segment by segment because an EXIF thumbnail has scans of its own; 0 if none."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == JPEG_SCAN:
            return at
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0
