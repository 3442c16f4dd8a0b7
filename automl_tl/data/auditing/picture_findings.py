"""Findings about the pictures themselves: sizes, color, and those on which there is little to see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from automl_tl.data.records import Records
from automl_tl.values import Finding, Severity

__all__ = ["picture_findings"]

TINY_PX: Final = 32  # shorter side; networks see such a picture enlarged sevenfold
LONG: Final = 4.0  # longer by shorter side; the center square then shows less than a quarter
BLANK_CONTRAST: Final = 0.01  # standard deviation of luma; the darkest traffic signs of GTSRB have 0.015
DARK, BRIGHT = 0.06, 0.96  # mean luma
BLURRED_SHARE: Final = 0.05  # of the median sharpness of the set
BLURRED: Final = 20.0  # variance of the Laplacian; a photograph in focus has hundreds
UNUSUAL: Final = 0.1  # of the images: drawings on white are all bright, and that is no finding
GREY: Final = 0.01
SHORTER, LONGER = "MIN(width_px, height_px)", "MAX(width_px, height_px)"


def picture_findings(used: Records) -> Iterator[Finding]:
    """What is worth saying about how the images ``used`` look."""
    if not used:
        return
    yield _statistics(used)
    tiny = _paths(used, f"{SHORTER} < ?", TINY_PX)
    yield from _some(
        tiny,
        code="tiny_images",
        title=f"Images less than {TINY_PX} px high or wide",
        severity="info" if len(tiny) > len(used) / 2 else "warning",
        why="They are enlarged many times, and little detail is left.",
        advice="Use larger originals if there are any.",
    )
    yield from _some(
        _paths(used, f"{LONGER} > ? * {SHORTER}", LONG),
        code="extreme_aspect",
        title=f"Images more than {LONG:.0f} times as long as wide",
        severity="warning",
        why="Only the center square is seen by the network.",
        advice="Crop them to what matters.",
    )
    blank = _paths(used, "contrast < ?", BLANK_CONTRAST)
    yield from _some(
        blank,
        code="blank_images",
        title="Images on which there is almost nothing",
        severity="warning",
        why="A picture without contrast teaches a class nothing, or something wrong.",
        advice="Look at them, and delete those on which you can't tell the class.",
    )
    yield from _dim(used.without(blank))


def _dim(shown: Records) -> Iterator[Finding]:
    too_soft = min(BLURRED, BLURRED_SHARE * _median(shown, "sharpness")) if shown else 0.0
    for code, title, paths in (
        ("dark_images", "Very dark images", _paths(shown, "brightness < ?", DARK)),
        ("bright_images", "Very bright images", _paths(shown, "brightness > ?", BRIGHT)),
        ("blurred_images", "Images much less sharp than the rest", _paths(shown, "sharpness < ?", too_soft)),
    ):
        yield from _some(
            paths if len(paths) <= UNUSUAL * len(shown) else (),
            code=code,
            title=title,
            severity="info",
            why="It is hard to see what they show; whoever labeled them may have guessed.",
            advice="Look at them, and delete those on which you can't tell the class.",
        )


def _statistics(used: Records) -> Finding:
    least, most, longest = next(used.select(f"MIN({SHORTER}), MAX({SHORTER}), MAX({LONGER})"))
    usual = _median(used, SHORTER)
    gray = used.value("COUNT(*)", "WHERE color < ?", GREY) / len(used)
    formats = used.select("format, COUNT(*)", "GROUP BY format ORDER BY COUNT(*) DESC, MIN(path) LIMIT 4")
    mixed = 0.02 < gray < 0.98
    return Finding(
        code="pictures",
        severity="info",
        title=f"Images in use: {len(used)}; shorter side {least} to {most} px (median {usual:.0f}), "
        f"{gray:.0%} gray, " + ", ".join(f"{number} {name}" for name, number in formats),
        why="Gray and colored pictures are mixed; see that color doesn't follow the class." if mixed else "For the record.",
        advice="Nothing to do.",
        facts={
            "num_images": len(used),
            "min_side_px": least,
            "median_side_px": usual,
            "max_side_px": longest,
            "gray_fraction": round(gray, 3),
            "median_brightness": round(_median(used, "brightness"), 3),
            "median_sharpness": round(_median(used, "sharpness"), 1),
        },
    )


def _median(images: Records, what: str) -> float:
    middle = images.select(what, f"ORDER BY {what} LIMIT ? OFFSET ?", 2 - len(images) % 2, (len(images) - 1) // 2)
    values: list[float] = [value for (value,) in middle]
    return median(values)


def _paths(images: Records, which: str, limit: float) -> tuple[str, ...]:
    return tuple(path for (path,) in images.select("path", f"WHERE {which} ORDER BY path", limit))


def _some(paths: Sequence[str], *, code: str, title: str, severity: Severity, why: str, advice: str) -> Iterator[Finding]:
    if paths:
        title = f"{title}: {len(paths)}"
        yield Finding(code=code, severity=severity, title=title, why=why, advice=advice, paths=tuple(paths))
