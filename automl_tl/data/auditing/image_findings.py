"""Findings about the images themselves: sizes, color, and those on which there is little to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Final

from automl_tl.data.records import exclude
from automl_tl.values import Finding, ImageRecord, Severity

__all__ = ["image_findings"]

TINY_PX: Final = 32  # shorter side; networks see such an image enlarged sevenfold
LONG: Final = 4.0  # longer by shorter side; the center square then shows less than a quarter
BLANK_CONTRAST: Final = 0.01  # standard deviation of luma; the darkest traffic signs of GTSRB have 0.015
DARK, BRIGHT = 0.06, 0.96  # mean luma
BLURRED_SHARE: Final = 0.05  # of the median sharpness of the set
BLURRED: Final = 20.0  # variance of the Laplacian; a photograph in focus has hundreds
UNUSUAL: Final = 0.1  # of the images: drawings on white are all bright, and that is no finding
GREY: Final = 0.01


def image_findings(used: Sequence[ImageRecord]) -> Iterator[Finding]:
    """What is worth saying about how the images ``used`` look."""
    if not used:
        return
    yield _statistics(used)
    tiny = _paths(used, lambda image: _shorter_px(image) < TINY_PX)
    yield from _some(
        tiny,
        code="tiny_images",
        title=f"Images less than {TINY_PX} px high or wide",
        severity="info" if len(tiny) > len(used) / 2 else "warning",
        why="They are enlarged many times, and little detail is left.",
        advice="Use larger originals if there are any.",
    )
    yield from _some(
        _paths(used, lambda image: _longer_px(image) > LONG * _shorter_px(image)),
        code="extreme_aspect",
        title=f"Images more than {LONG:.0f} times as long as wide",
        severity="warning",
        why="Only the center square is seen by the network.",
        advice="Crop them to what matters.",
    )
    blank = _paths(used, lambda image: image.contrast < BLANK_CONTRAST)
    yield from _some(
        blank,
        code="blank_images",
        title="Images on which there is almost nothing",
        severity="warning",
        why="An image without contrast teaches a class nothing, or something wrong.",
        advice="Look at them, and delete those on which you can't tell the class.",
    )
    yield from _dim(exclude(used, blank))


def _dim(shown: Sequence[ImageRecord]) -> Iterator[Finding]:
    too_soft = min(BLURRED, BLURRED_SHARE * median(image.sharpness for image in shown)) if shown else 0.0
    for code, title, paths in (
        ("dark_images", "Very dark images", _paths(shown, lambda image: image.brightness < DARK)),
        ("bright_images", "Very bright images", _paths(shown, lambda image: image.brightness > BRIGHT)),
        ("blurred_images", "Images much less sharp than the rest", _paths(shown, lambda image: image.sharpness < too_soft)),
    ):
        yield from _some(
            paths if len(paths) <= UNUSUAL * len(shown) else (),
            code=code,
            title=title,
            severity="info",
            why="Their content is hard to see, so their labels may be guesses.",
            advice="Look at them, and delete those on which you can't tell the class.",
        )


def _statistics(used: Sequence[ImageRecord]) -> Finding:
    shorter = [_shorter_px(image) for image in used]
    least, most, longest = min(shorter), max(shorter), max(map(_longer_px, used))
    usual = median(shorter)
    gray = sum(image.color < GREY for image in used) / len(used)
    formats = Counter(image.format for image in used).most_common(4)
    mixed = 0.02 < gray < 0.98
    return Finding(
        code="pictures",
        severity="info",
        title=f"Images in use: {len(used)}; shorter side {least} to {most} px (median {usual:.0f}), "
        f"{gray:.0%} gray, " + ", ".join(f"{number} {name}" for name, number in formats),
        why="Gray and colored images are mixed; see that color doesn't follow the class." if mixed else "For the record.",
        advice="Nothing to do.",
        facts={
            "num_images": len(used),
            "min_side_px": least,
            "median_side_px": usual,
            "max_side_px": longest,
            "gray_fraction": round(gray, 3),
            "median_brightness": round(median(image.brightness for image in used), 3),
            "median_sharpness": round(median(image.sharpness for image in used), 1),
        },
    )


def _shorter_px(image: ImageRecord) -> int:
    return min(image.width_px, image.height_px)


def _longer_px(image: ImageRecord) -> int:
    return max(image.width_px, image.height_px)


def _paths(images: Sequence[ImageRecord], matches: Callable[[ImageRecord], bool]) -> tuple[str, ...]:
    return tuple(image.path for image in images if matches(image))


def _some(paths: Sequence[str], *, code: str, title: str, severity: Severity, why: str, advice: str) -> Iterator[Finding]:
    if paths:
        title = f"{title}: {len(paths)}"
        yield Finding(code=code, severity=severity, title=title, why=why, advice=advice, paths=tuple(paths))
