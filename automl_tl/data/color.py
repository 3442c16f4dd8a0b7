"""Every pixel mode that Pillow may hand out, made RGB with 8 bits per channel by a stated rule."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from automl_tl.errors import UndecodableError

__all__ = ["to_rgb"]

DEEP_MODES: Final = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
ALPHA_MODES: Final = ("RGBA", "LA", "PA", "RGBa", "La")


def to_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """``image`` (loaded) as RGB, and remarks on what that took.

    Raises:
        UndecodableError: the mode has no meaning as an image.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image, ()
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        return _on_white(image)
    if image.mode in DEEP_MODES:
        gray, remark = _scaled(np.asarray(image))
        return Image.fromarray(gray).convert("RGB"), (remark,) if remark else ()
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
        raise UndecodableError("unsupported", "CIELAB colors could not be converted")
    return converted


def _scaled(values: NDArray[np.generic]) -> tuple[NDArray[np.uint8], str]:
    """Gray 0 to 255 from deep values: by the smallest of the usual ranges that holds them all, else from least to greatest."""
    pixels = values.astype(np.float32)
    finite = np.isfinite(pixels)
    if not finite.any():
        raise UndecodableError("damaged", "no pixel has a finite value")
    low, high = float(pixels[finite].min()), float(pixels[finite].max())
    pixels = np.where(finite, pixels, low)
    start, span, remark = _range(low, high, is_float=np.issubdtype(values.dtype, np.floating))
    return np.clip((pixels - start) * (255.0 / span) + 0.5, 0, 255).astype(np.uint8), remark


def _range(low: float, high: float, *, is_float: bool) -> tuple[float, float, str]:
    if low < 0 or high > 65535:
        return low, max(high - low, 1e-12), f"scaled from least to greatest value ({low:g} to {high:g})"
    if is_float and high <= 1:
        return 0.0, 1.0, "scaled from floats 0 to 1"
    if high <= 255:
        return 0.0, 255.0, ""
    bits = 12 if high <= 4095 else 16  # 12-bit sensors write 16-bit files
    return 0.0, float(2**bits - 1), f"scaled from {bits} bits"
