"""Convert the pixels of any Pillow image to 8-bit RGB: size, orientation, transparency, deep pixels, color models.

Needs numpy and Pillow only: exports ship this file, so that their programs see the pixels that training saw.

Deeper pixels have no common meaning of black and white, so the range of each image is found, in this order:

1. 8-bit pixels in a deeper file (0 to 255, multiples of 256 or 257, floats that are multiples of 1/255) get those 8 bits.
2. Pixels that fill a quarter of a usual range (12 bits, 16 bits, floats 0 to 1 or 0 to 255) are scaled by that range.
3. All others are stretched from their own least to their greatest value.

Hot and dead pixels, and whole lines of them, must not decide. So a value counts only where a neighbor in the row and one in
the column reach it too, and a few (``num_outliers``) of those that count are ignored at each end. Sources: a rank test against
the neighbors is how isolated defects are found (order-statistic filters; Gonzalez and Woods, Digital Image Processing, 5.3);
stretching between percentiles is usual for deep images (ImageJ's "Enhance contrast"; nnU-Net, arXiv 1809.10486), but alone
it would also ignore small bright objects.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

COLORS_VERSION: Final = 3
"""Part of the keys of caches: raise it whenever a pixel is converted differently."""

# Excludes formats that run another program (EPS) or accept any bytes (TGA).
FORMATS: Final = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO", "PCX", "SGI")
PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS: Final = (b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"IDAT", b"fdAT", b"IEND", b"eXIf")
ORIENTATION: Final = 0x0112  # tag of EXIF
TRANSPOSES: Final = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAX_PIXELS: Final = 89_478_485  # a quarter of a GiB as RGB, where Pillow starts to warn; nothing larger is decoded in full
JPEGS: Final = ("JPEG", "MPO")
DEEP_MODES: Final = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
ALPHA_MODES: Final = ("RGBA", "LA", "PA", "RGBa", "La")
# Raw modes of which Pillow keeps the high bytes only -> the one that keeps the low bytes of the same data.
LOW_BYTES: Final = {
    f"{channels};16{order}": f"{channels};16{other}"
    for channels in ("RGB", "RGBX", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}
GRAY_ALPHA: Final = "LA;16B"

OUTLIER_FRACTION: Final = 1e-4  # at each end: clusters of defects
FEW_OUTLIERS: Final = 4  # of a small image
PIXELS_PER_OUTLIER: Final = 64
DEVIATING_FRACTION: Final = 0.01  # of pixels that are not whole multiples, among 8-bit pixels; of others, 98% are none
USUAL_BITS: Final = (12, 16)  # 12-bit sensors write 16-bit files
NARROW: Final = 1 / 4  # of a usual range
LEVELS: Final = 256  # least width of a stretched range of whole numbers: the noise of a blank image stays small
BLOCK_VALUES: Final = 2**20
MAX_DECIDING: Final = 2**20  # pixels
WHOLE: Final = 0.01  # deviation from a whole level, for floats
FILL_VALUE: Final = 1e30  # greater values are marks of missing data
BITS, PHOTOMETRIC, PLANAR, SAMPLE_FORMAT, GDAL_NODATA = 258, 262, 284, 339, 42113  # tags of TIFF
WHITE_IS_ZERO, SEPARATE, UNSIGNED = 0, 2, (1,)


class UnsupportedColorsError(ValueError):
    """An intact image whose colors are not converted."""


Deep = NDArray[np.integer[Any] | np.floating[Any]]


def read_rgb(path: str, side_px: int) -> Image.Image:
    """Read an image file as ``decode`` does; exported programs read images so.

    Args:
        path: of the file.
        side_px: length of the shorter side that the model needs; a much larger image is reduced.

    Returns:
        The upright image in 8-bit RGB.

    Raises:
        Exception: whatever Pillow raises on a damaged file, or on one of a format that is not read.
    """
    with suppress(ImportError):  # for HEIC photographs
        from pillow_heif import register_heif_opener

        register_heif_opener()
    try:
        return _read_rgb(lambda: path, side_px)
    except UnsupportedColorsError:
        raise
    except Exception as error:
        data = Path(path).read_bytes()
        bare = without_metadata(data) if data.startswith(PNG_MAGIC) else data
        if len(bare) == len(data):
            raise
        try:
            return _read_rgb(lambda: BytesIO(bare), side_px)
        except Exception:  # it was not the metadata
            raise error from None


def _read_rgb(source: Callable[[], str | BytesIO], side_px: int) -> Image.Image:
    Image.init()
    formats: list[str] = [name for name in (*FORMATS, "HEIF") if name in Image.OPEN]
    with Image.open(source(), formats=formats) as image:
        draft(image, side_px)
        if image.width * image.height > MAX_PIXELS:
            raise UnsupportedColorsError(f"more than {MAX_PIXELS / 1e6:.0f} million pixels; scale it down")
        rgb, _ = to_rgb(image, lambda: Image.open(source(), formats=formats), lambda loaded: reduced(loaded, side_px))
        return upright(rgb, orientation_of(image))


def without_metadata(png: bytes) -> bytes:
    """The chunks of a PNG that hold or describe pixels."""
    return PNG_MAGIC + b"".join(chunk for chunk in png_chunks(png) if chunk[4:8] in PNG_CHUNKS)


def png_chunks(png: bytes) -> Iterator[bytes]:
    """The chunks, each with its length, kind and checksum."""
    at = len(PNG_MAGIC)
    while at + 12 <= len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        yield png[at:end]
        at = end


def draft(image: Image.Image, side_px: int | None) -> None:
    """Let the decoder of a JPEG that is not loaded yet scale it down.

    Args:
        image: of any format; only JPEGs are changed.
        side_px: the shorter side keeps at least twice this length; ``None``: only as far as ``MAX_PIXELS`` demands.
    """
    if image.format not in JPEGS:
        return
    shrink = min(image.size) / (2 * side_px) if side_px else 1.0
    shrink = max(shrink, (image.width * image.height / MAX_PIXELS) ** 0.5)
    if shrink > 1:
        image.draft(None, (int(image.width / shrink), int(image.height / shrink)))


def reduced(image: Image.Image, side_px: int | None) -> Image.Image:
    """Average a loaded image down, to no less than twice ``side_px``.

    Args:
        image: of any mode; only those whose values can be averaged are changed.
        side_px: length of the shorter side; ``None``: keep the size.
    """
    factor = min(image.size) // (2 * side_px) if side_px else 1
    reducible = image.mode in ("L", "RGB", "RGBA", "CMYK") and "transparency" not in image.info
    return image.reduce(factor) if factor > 1 and reducible else image


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 if there is none or it cannot be read."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # EXIF is written by any program, and Pillow raises anything on it
        return 1
    return orientation if orientation in TRANSPOSES else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image upright.

    Args:
        image: as it is stored.
        orientation: EXIF orientation, 1 to 8.

    Returns:
        The turned image.
    """
    return image.transpose(TRANSPOSES[orientation]) if orientation in TRANSPOSES else image


def to_rgb(
    image: ImageFile.ImageFile,
    reopen: Callable[[], Image.Image],
    reduce: Callable[[Image.Image], Image.Image] = lambda image: image,
) -> tuple[Image.Image, tuple[str, ...]]:
    """Load ``image`` and convert it to 8-bit RGB.

    Args:
        image: opened and not yet loaded.
        reopen: opens the same file again; 16-bit colors are read in two passes.
        reduce: makes a loaded 8-bit image smaller before it is converted.

    Returns:
        The RGB image, and remarks on what was converted.

    Raises:
        UnsupportedColorsError: the image is intact but of a kind that is not converted.
        ValueError: no pixel has a finite value.
        Exception: whatever Pillow raises on a damaged file.
    """
    if channels := _deep_channels(image, reopen):
        return _from_deep(*channels, inverted=False)
    image.load()
    if image.mode in DEEP_MODES:
        values = _deep_values(image)
        transparent = image.info.get("transparency")
        alpha = None if not isinstance(transparent, int) else np.where(values == transparent, 0, 255).astype(np.uint8)
        return _from_deep(values, alpha, inverted=_tag(image, PHOTOMETRIC) == WHITE_IS_ZERO)
    return _from_eight_bits(reduce(image))


def _from_eight_bits(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image, ()
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        return _on_white(image)
    if image.mode == "LAB":
        return _from_lab(image), ("converted from CIELAB",)
    if image.mode in ("L", "1", "P", "RGBX"):
        return image.convert("RGB"), ()
    return image.convert("RGB"), (f"converted from {image.mode}",)


def _on_white(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return rgba.convert("RGB"), ()
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=alpha)
    return white, ("transparency on white",)


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:
        raise UnsupportedColorsError("CIELAB colors could not be converted")
    return converted


# --------------------------------------------------------------------------------------------------------- deep pixels


def _deep_channels(
    image: ImageFile.ImageFile, reopen: Callable[[], Image.Image]
) -> tuple[NDArray[np.uint16], NDArray[np.uint8] | None] | None:
    """Colors ``(H, W, 1 or 3)`` and alpha ``(H, W)`` of an image with 16 bits per channel; ``None`` of any other image.

    Pillow keeps 8 of the 16 bits, which makes an image of 12-bit values black. The same bytes read in the opposite byte order
    give the other 8 bits; gray with alpha is read as if its four bytes were four channels.
    """
    if _tag(image, PLANAR) == SEPARATE and max(_tag(image, BITS) or ()) > 8:
        raise UnsupportedColorsError(
            "a TIFF of more than 8 bits in separate planes is not read; save it with interleaved channels"
        )
    raw = _raw_mode(image)
    if raw == GRAY_ALPHA:
        _set_raw_mode(image, "RGBA")
        image.load()
        gray, low, alpha, _ = np.moveaxis(np.asarray(image), 2, 0)
        return (gray.astype(np.uint16) << 8 | low)[..., None], alpha
    if raw not in LOW_BYTES:
        return None
    image.load()
    values = np.asarray(image).astype(np.uint16)
    again = reopen()
    _set_raw_mode(again, LOW_BYTES[raw])
    again.load()
    values <<= 8
    values |= np.asarray(again)
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple) and len(transparent) == 3:
        return values, np.where((values == transparent).all(axis=2), 0, 255).astype(np.uint8)
    return values[..., :3], (values[..., 3] >> 8).astype(np.uint8) if values.shape[2] == 4 else None


def _raw_mode(image: Image.Image) -> str | None:
    """How the decoder of a PNG or TIFF unpacks its pixels, if the same for the whole image."""
    tiles = [tile for tile in getattr(image, "tile", ()) if tile.codec_name in ("zip", "raw", "libtiff") and tile.args]
    raws = {tile.args if isinstance(tile.args, str) else tile.args[0] for tile in tiles}
    return raws.pop() if len(raws) == 1 else None


def _set_raw_mode(image: Any, raw: str) -> None:  # noqa: ANN401 - tiles are an attribute of subclasses
    image.tile = [tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:])) for tile in image.tile]


def _deep_values(image: Image.Image) -> Deep:
    """Values ``(H, W)`` of a gray image; missing ones are NaN."""
    values: Deep = np.asarray(image)
    if image.mode == "I" and _tag(image, SAMPLE_FORMAT) == UNSIGNED:
        values = values.view(np.uint32)
    try:
        missing = float(str(_tag(image, GDAL_NODATA)).strip("\0 "))
    except ValueError:
        return values
    return np.where(values == missing, np.nan, values.astype(np.float64))


def _tag(image: Image.Image, number: int) -> Any:  # noqa: ANN401 - of any type
    return getattr(image, "tag_v2", {}).get(number)


def _from_deep(values: Deep, alpha: NDArray[np.uint8] | None, *, inverted: bool) -> tuple[Image.Image, tuple[str, ...]]:
    levels, remark = scale(values, None if alpha is None or not alpha.any() else alpha > 0)
    levels = 255 - levels if inverted else levels
    gray = levels.squeeze(2) if levels.shape[2:] == (1,) else levels
    rgb, remarks = Image.fromarray(gray).convert("RGB"), (remark,) if remark else ()
    if alpha is None:
        return rgb, remarks
    rgb.putalpha(Image.fromarray(alpha))
    rgb, blended = _on_white(rgb)
    return rgb, (*remarks, *blended)


def scale(values: Deep, visible: NDArray[np.bool_] | None = None) -> tuple[NDArray[np.uint8], str]:
    """Scale deep values to 0 to 255, in the range that the module's docstring defines.

    Args:
        values: ``(H, W)`` or ``(H, W, C)``, of any type.
        visible: ``(H, W)``, the pixels that decide. Default: all.

    Returns:
        uint8 of the shape of ``values``, and a remark.

    Raises:
        ValueError: no value is finite.
    """
    is_float = np.issubdtype(values.dtype, np.floating)
    if is_float:
        values = np.where(np.abs(values) < FILL_VALUE, values, np.nan)
    # 1) Least and greatest value without the outliers; of a large image, every few rows and columns are enough.
    step = math.ceil((values.shape[0] * values.shape[1] / MAX_DECIDING) ** 0.5)
    sample, mask = values[::step, ::step], None if visible is None else visible[::step, ::step]
    deciding, highs, lows = (
        (array if mask is None else array[mask]).ravel()
        for array in (sample, _supported(sample, np.fmax, np.fmin), _supported(sample, np.fmin, np.fmax))
    )
    if is_float:
        deciding, highs, lows = (array[~np.isnan(deciding)] for array in (deciding, highs, lows))
    if not deciding.size:
        raise ValueError("no pixel has a finite value")
    outliers = num_outliers(deciding.size)
    low, high = float(np.partition(lows, outliers)[outliers]), float(np.partition(highs, -1 - outliers)[-1 - outliers])
    low, high = min(low, high), max(low, high)
    # 2) The range that becomes 0 to 255.
    if unit := _unit_of_8_bits(deciding, low, high):
        start, span, remark = 0.0, 255.0 * unit, _remark(255.0 * unit)
    else:
        start, span, remark = _range(low, high, is_float=is_float)

    def to_levels(block: Deep) -> NDArray[np.uint8]:
        scaled = (block.astype(np.float64) - start) * (255.0 / span) + 0.5
        return np.clip(np.nan_to_num(scaled, nan=0), 0, 255).astype(np.uint8)

    # 3) Scale: by a table, or in blocks, because a copy of a large image as float64 would be 8 times its size in 8 bits.
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return to_levels(np.arange(2**16))[values], remark
    rows = max(1, BLOCK_VALUES // max(1, values[0].size))
    return np.concatenate([to_levels(values[row : row + rows]) for row in range(0, len(values), rows)]), remark


def num_outliers(num_pixels: int) -> int:
    """How many pixels at each end of the range of an image are ignored."""
    return max(int(num_pixels * OUTLIER_FRACTION), min(FEW_OUTLIERS, num_pixels // PIXELS_PER_OUTLIER))


def _supported(values: Deep, further: np.ufunc, nearer: np.ufunc) -> Deep:
    """Each value, or the nearer one that a neighbor in its row and a neighbor in its column reach too; NaN reaches nothing."""
    result = values
    for axis in (0, 1):
        if values.shape[axis] < 3:  # too thin to have neighbors on both sides
            continue
        lines = np.moveaxis(values, axis, 0)
        neighbors = np.concatenate((lines[1:2], further(lines[:-2], lines[2:]), lines[-2:-1]))
        result = nearer(result, np.moveaxis(neighbors, 0, axis))
    return result


def _unit_of_8_bits(values: Deep, low: float, high: float) -> float | None:
    """The step that makes ``values`` whole numbers from 0 to 255 but for few exceptions, if there is one."""
    units = (1.0, 1 / 255) if np.issubdtype(values.dtype, np.floating) else (1, 257, 256)
    exceptions = max(int(values.size * DEVIATING_FRACTION), num_outliers(values.size))
    for unit in units:
        if low < 0 or high > 255.5 * unit:
            continue
        deviating = values % unit != 0 if isinstance(unit, int) else np.abs(values / unit - np.rint(values / unit)) > WHOLE
        if np.count_nonzero(deviating) <= exceptions:
            return unit
    return None


def _range(low: float, high: float, *, is_float: bool) -> tuple[float, float, str]:
    """Start and width of the range that becomes 0 to 255, and the remark on it."""
    usual = [1.0, 255.0] if is_float else []
    full = next((size for size in (*usual, *(2.0**bits - 1 for bits in USUAL_BITS)) if low >= 0 and high <= size), None)
    span = high - low
    if full and span >= NARROW * full:
        return 0.0, full, _remark(full)
    if full and not is_float:
        span = max(span, full / LEVELS)
    span = span or full or 1.0
    return (low + high - span) / 2, span, f"stretched to its own range ({low:g} to {high:g})"


def _remark(full: float) -> str:
    if full == 1:
        return "scaled from floats 0 to 1"
    return "" if full == 255 else f"scaled from {int(full).bit_length()} bits"
