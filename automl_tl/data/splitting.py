"""Train, validation and test: stratified, seeded, never parting a group, never moving an image that already had its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from automl_tl.data.drawing import Draw, is_held_out
from automl_tl.data.records import exclude
from automl_tl.values import DataReport, DatasetIndex, ImageRecord, LeftOut, SplitAssignment, SplitName

__all__ = [
    "TEST_FRACTION",
    "VALIDATION_FRACTION",
    "count_by_split",
    "images_by_split",
    "images_in_use",
    "images_to_measure_on",
    "make_split",
    "unplaced",
]

TEST_FRACTION: Final = 0.2
CUT: Final[tuple[SplitName, ...]] = ("test", "validation")  # where the source doesn't give them, in this order
VALIDATION_FRACTION: Final = 0.2  # of what is not test: 16% of all, or 20% where the test part is given


def make_split(
    index: DatasetIndex, report: DataReport, *, seed: int = 0, saved: SplitAssignment | None = None
) -> SplitAssignment:
    """Part of every usable image, by digest.

    Parts that the source gives stay as they are; what it doesn't give is cut from train: a test part of 20% of all, a
    validation part of 20% of the rest, per class and to the nearest image; a class with three or more groups is in all
    parts. The draw depends on the digests and ``seed`` alone. What ``saved`` placed keeps its place, and is remembered even
    if the image is missing now; new images fill up.
    """
    used = images_in_use(index, report)
    given = {image.split for image in used if is_held_out(image)}
    wanted = tuple(part for part in CUT if part not in given)
    saved_parts = saved.splits if saved else {}
    places = {digest: part for digest, part in saved_parts.items() if part in ("train", *wanted)}
    notes: list[str] = []
    draw = Draw(used, report.groups, seed)
    for label in draw.labels():
        counts = draw.put_back(label, places, notes) if saved else Counter[SplitName]()
        num_images, num_units = draw.size(label)
        if num_units <= len(wanted):
            notes.append(f"{label}: too few images that differ to have some in every part")
        _fill(draw, label, _targets(num_images, num_units, wanted), counts)
    places |= draw.places()
    places |= {image.digest: image.split for image in used if image.split and is_held_out(image)}
    return SplitAssignment(seed=seed, test_given="test" not in wanted, splits=dict(sorted(places.items())), notes=tuple(notes))


def images_in_use(index: DatasetIndex, report: DataReport) -> tuple[ImageRecord, ...]:
    """The images of ``index`` that are not left out."""
    return exclude(index.images, (row.path for row in report.left_out))


def images_to_measure_on(index: DatasetIndex) -> tuple[ImageRecord, ...]:
    """The test part, if the source names one, else all images."""
    images = exclude(index.images, ())
    return tuple(image for image in images if image.split == "test") or images


def images_by_split(
    index: DatasetIndex, report: DataReport, split: SplitAssignment
) -> dict[SplitName, tuple[ImageRecord, ...]]:
    """What is really used: the images of each part, sorted by path, without those left out."""
    parts: dict[SplitName, list[ImageRecord]] = {"train": [], "validation": [], "test": []}
    for image in images_in_use(index, report):
        if part := split.splits.get(image.digest):
            parts[part].append(image)
    return {part: tuple(images) for part, images in parts.items()}


def count_by_split(index: DatasetIndex, report: DataReport, split: SplitAssignment) -> dict[SplitName, Counter[str]]:
    """The number of images of each class in each part, without those left out."""
    counts: dict[SplitName, Counter[str]] = {"train": Counter(), "validation": Counter(), "test": Counter()}
    for image in images_in_use(index, report):
        if part := split.splits.get(image.digest):
            counts[part][image.label] += 1
    return counts


def unplaced(index: DatasetIndex, report: DataReport, split: SplitAssignment) -> tuple[LeftOut, ...]:
    """Images without a part: they resemble images on both sides of a saved split, and neither side may have them."""
    detail = "it resembles images in two parts of the saved split, so that neither may have it"
    missing = (image for image in images_in_use(index, report) if image.digest not in split.splits)
    return tuple(LeftOut(path=image.path, reason="between_parts", detail=detail) for image in missing)


def _targets(num_images: int, num_units: int, wanted: Sequence[SplitName]) -> dict[SplitName, int]:
    """Number of images that each part other than train should have of a class."""
    targets: dict[SplitName, int] = {}
    left = num_images
    for part in wanted:
        fraction = TEST_FRACTION if part == "test" else VALIDATION_FRACTION
        enough = num_units > len(targets) + 1
        targets[part] = max(int(fraction * left + 0.5), 1) if enough else 0
        left -= targets[part]
    return targets


def _fill(draw: Draw, label: str, targets: Mapping[SplitName, int], counts: Counter[SplitName]) -> None:
    """Gives the parts their units of a class, one part after the other; what fits nowhere is for train.

    Every part with a target gets at least one unit while there is one left for each, even if it is too large.
    """
    waiting = [part for part, target in targets.items() if target and not counts[part]]
    for part, target in targets.items():
        waiting = [other for other in waiting if other != part]
        draw.fill(label, part, target, counts, kept_back=len(waiting) + (not counts["train"]))
