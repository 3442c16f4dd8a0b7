"""Train, validation and test: stratified, seeded, never parting a group, never moving an image that already had its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from automl_tl.data.joining import join
from automl_tl.data.records import Records
from automl_tl.values import DataReport, DatasetIndex, ImageRecord, LeftOut, Part, Split

__all__ = ["TEST_FRACTION", "VALIDATION_FRACTION", "images_by_part", "make_split", "unplaced"]

TEST_FRACTION: Final = 0.2
CUT: Final[tuple[Part, ...]] = ("test", "validation")  # where the source doesn't give them, in this order
VALIDATION_FRACTION: Final = 0.2  # of what is not test: 16 % of all, or 20 % where the test part is given


@dataclass(frozen=True, slots=True)
class _Unit:
    """Images that stay together: their paths' digests, the class most of them have, a place in the seeded order."""

    digests: tuple[str, ...]
    label: str
    order: str
    size: int


def make_split(index: DatasetIndex, report: DataReport, *, seed: int = 0, saved: Split | None = None) -> Split:
    """Part of every usable image, by digest.

    Parts that the source gives stay as they are; what it doesn't give is cut from train: a test part of 20 % of all, a
    validation part of 20 % of the rest, per class and to the nearest image; a class with three or more groups is in all
    parts. The draw depends on the digests and ``seed`` alone. What ``saved`` placed keeps its place, and is remembered even
    if the image is missing now; new images fill up.
    """
    used = _used(index, report)
    given = {image.digest: image.part for image in used if image.part in ("validation", "test")}
    wanted = tuple(part for part in CUT if part not in given.values())
    units = _units([image for image in used if image.digest not in given], report.groups, seed)
    placed = {digest: part for digest, part in (saved.parts if saved else {}).items() if part in ("train", *wanted)}
    parts: dict[str, Part] = {**placed, **{digest: part for digest, part in given.items() if part}}
    notes: list[str] = []
    for label in sorted({unit.label for unit in units}):
        parts |= _place([unit for unit in units if unit.label == label], wanted, placed, notes)
    test_given = "test" not in wanted
    return Split(seed=seed, test_given=test_given, parts=dict(sorted(parts.items())), notes=tuple(notes))


def images_by_part(index: DatasetIndex, report: DataReport, split: Split) -> dict[Part, tuple[ImageRecord, ...]]:
    """What is really used: the images of each part, sorted by path, without those left out."""
    parts: dict[Part, list[ImageRecord]] = {"train": [], "validation": [], "test": []}
    for image in _used(index, report).without_thumbnails():
        if image.digest in split.parts:
            parts[split.parts[image.digest]].append(image)
    return {part: tuple(images) for part, images in parts.items()}


def unplaced(index: DatasetIndex, report: DataReport, split: Split) -> tuple[LeftOut, ...]:
    """Images without a part: they resemble images on both sides of a saved split, and neither side may have them."""
    detail = "it resembles images in two parts of the saved split, so that neither may have it"
    homeless = (image for image in _used(index, report) if image.digest not in split.parts)
    return tuple(LeftOut(path=image.path, reason="between_parts", detail=detail) for image in homeless)


def _used(index: DatasetIndex, report: DataReport) -> Records:
    return Records.of(index.images).without(row.path for row in report.left_out)


def _units(images: Sequence[ImageRecord], groups: Iterable[Sequence[str]], seed: int) -> list[_Unit]:
    """Units in the order of the draw, which is that of hashes of seed and content."""
    by_path = {image.path: image for image in images}
    together = join(by_path, groups)
    units = [_unit([by_path[path] for path in paths], seed) for paths in together]
    return sorted(units, key=lambda unit: unit.order)


def _unit(images: Sequence[ImageRecord], seed: int) -> _Unit:
    labels = Counter(image.label for image in images)
    label = min(labels, key=lambda name: (-labels[name], name))
    digests = tuple(sorted(image.digest for image in images))
    return _Unit(digests, label, min(sha256(f"{seed} {digest}".encode()).hexdigest() for digest in digests), len(images))


def _place(units: Sequence[_Unit], wanted: Sequence[Part], placed: Mapping[str, Part], notes: list[str]) -> dict[str, Part]:
    """Part of every digest in the units of one class."""
    parts: dict[str, Part] = {}
    free: list[_Unit] = []
    for unit in units:
        old = {digest: placed[digest] for digest in unit.digests if digest in placed}
        if not old:
            free.append(unit)
            continue
        parts |= old
        new = [digest for digest in unit.digests if digest not in placed]
        if len(set(old.values())) == 1:
            parts |= dict.fromkeys(new, next(iter(old.values())))
        else:
            notes.append(
                f"{unit.label}: similar images lie in two parts of the saved split; {len(new)} new ones like them stay out"
            )
    targets = _targets(sum(unit.size for unit in units), len(units), wanted)
    if len(units) <= len(wanted):
        notes.append(f"{unit.label}: too few images that differ to have some in every part")
    return parts | _fill(free, targets, Counter(parts.values()))


def _targets(num_images: int, num_units: int, wanted: Sequence[Part]) -> dict[Part, int]:
    """Number of images that each part other than train should have of a class."""
    targets: dict[Part, int] = {}
    left = num_images
    for part in wanted:
        fraction = TEST_FRACTION if part == "test" else VALIDATION_FRACTION
        enough = num_units > len(targets) + 1
        targets[part] = max(int(fraction * left + 0.5), 1) if enough else 0
        left -= targets[part]
    return targets


def _fill(free: Sequence[_Unit], targets: Mapping[Part, int], counts: Counter[Part]) -> dict[str, Part]:
    """Places units, in their order, in the first part that has room for them; what fits nowhere is for train.

    Every part with a target gets at least one unit while there is one left for each, even if it is too large.
    """
    parts: dict[str, Part] = {}
    left = {unit.order: unit for unit in free}
    waiting = [part for part, target in targets.items() if target and not counts[part]]
    for part, target in targets.items():
        kept_back = sum(other != part for other in waiting) + (not counts["train"])
        for unit in list(left.values()):
            if counts[part] + unit.size <= target and len(left) > kept_back:
                _move(unit, part, left, parts, counts)
        if target and not counts[part] and len(left) > kept_back:
            _move(min(left.values(), key=lambda unit: unit.size), part, left, parts, counts)
        waiting = [other for other in waiting if other != part]
    return parts | {digest: "train" for unit in left.values() for digest in unit.digests}


def _move(unit: _Unit, part: Part, left: dict[str, _Unit], parts: dict[str, Part], counts: Counter[Part]) -> None:
    del left[unit.order]
    parts |= dict.fromkeys(unit.digests, part)
    counts[part] += unit.size
