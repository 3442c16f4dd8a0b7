"""Findings about the pictures themselves: sizes, colour, and those on which there is little to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from automl_tl.values import Finding, ImageRecord, Severity

__all__ = ["picture_findings"]

TINY_PX: Final = 32  # shorter side; networks see such a picture enlarged sevenfold
LONG: Final = 4.0  # longer by shorter side; the centre square then shows less than a quarter
BLANK_CONTRAST: Final = 0.01  # standard deviation of luma; the darkest traffic signs of GTSRB have 0.015
DARK, BRIGHT = 0.06, 0.96  # mean luma
BLURRED_SHARE: Final = 0.05  # of the median sharpness of the set
BLURRED: Final = 20.0  # variance of the Laplacian; a photograph in focus has hundreds
UNUSUAL: Final = 0.1  # of the images: drawings on white are all bright, and that is no finding
GREY: Final = 0.01


def picture_findings(used: Sequence[ImageRecord]) -> Iterator[Finding]:
    """What is worth saying about how the images ``used`` look."""
    if not used:
        return
    yield _statistics(used)
    tiny = [image for image in used if min(_sides(image)) < TINY_PX]
    yield from _some(
        tiny,
        code="tiny_images",
        title=f"Images less than {TINY_PX} px high or wide",
        severity="info" if len(tiny) > len(used) / 2 else "warning",
        why="They are enlarged many times, and little detail is left.",
        advice="Use larger originals if there are any.",
    )
    yield from _some(
        [image for image in used if max(_sides(image)) > LONG * min(_sides(image))],
        code="extreme_aspect",
        title=f"Images more than {LONG:.0f} times as long as wide",
        severity="warning",
        why="Only the centre square is seen by the network.",
        advice="Crop them to what matters.",
    )
    blank = [image for image in used if image.contrast < BLANK_CONTRAST]
    yield from _some(
        blank,
        code="blank_images",
        title="Images on which there is almost nothing",
        severity="warning",
        why="A picture without contrast teaches a class nothing, or something wrong.",
        advice="Look at them, and delete those on which you can't tell the class.",
    )
    yield from _dim([image for image in used if image.contrast >= BLANK_CONTRAST])


def _dim(shown: Sequence[ImageRecord]) -> Iterator[Finding]:
    usual = median(image.sharpness for image in shown) if shown else 0.0
    blurred = [image for image in shown if image.sharpness < min(BLURRED, BLURRED_SHARE * usual)]
    for code, title, images in (
        ("dark_images", "Very dark images", [image for image in shown if image.brightness < DARK]),
        ("bright_images", "Very bright images", [image for image in shown if image.brightness > BRIGHT]),
        ("blurred_images", "Images much less sharp than the rest", blurred),
    ):
        yield from _some(
            images if len(images) <= UNUSUAL * len(shown) else (),
            code=code,
            title=title,
            severity="info",
            why="It is hard to see what they show; whoever labelled them may have guessed.",
            advice="Look at them, and delete those on which you can't tell the class.",
        )


def _statistics(used: Sequence[ImageRecord]) -> Finding:
    shorter = [min(_sides(image)) for image in used]
    grey = sum(image.colour < GREY for image in used) / len(used)
    formats = Counter(image.format for image in used)
    mixed = 0.02 < grey < 0.98
    return Finding(
        code="pictures",
        severity="info",
        title=f"Images in use: {len(used)}; shorter side {min(shorter)} to {max(shorter)} px (median {median(shorter):.0f}), "
        f"{grey:.0%} grey, " + ", ".join(f"{number} {name}" for name, number in formats.most_common(4)),
        why="Grey and coloured pictures are mixed; see that colour doesn't follow the class." if mixed else "For the record.",
        advice="Nothing to do.",
        facts={
            "num_images": len(used),
            "min_side_px": min(shorter),
            "median_side_px": median(shorter),
            "max_side_px": max(max(_sides(image)) for image in used),
            "grey_fraction": round(grey, 3),
            "median_brightness": round(median(image.brightness for image in used), 3),
            "median_sharpness": round(median(image.sharpness for image in used), 1),
        },
    )


def _some(
    images: Sequence[ImageRecord], *, code: str, title: str, severity: Severity, why: str, advice: str
) -> Iterator[Finding]:
    if images:
        paths = tuple(image.path for image in images)
        title = f"{title}: {len(images)}"
        yield Finding(code=code, severity=severity, title=title, why=why, advice=advice, paths=paths)


def _sides(image: ImageRecord) -> tuple[int, int]:
    return image.width_px, image.height_px
