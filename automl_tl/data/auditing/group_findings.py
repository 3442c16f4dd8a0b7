"""Images that belong together though nobody said so: frames of a sequence by their names, bursts by their EXIF time.

Bursts are bound (no split parts them). Groups guessed from names are only proposed: names are too various to act upon.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final

import numpy as np

from automl_tl.data.auditing.copies import precedence
from automl_tl.values import Finding, ImageRecord

__all__ = ["bursts", "group_findings", "name_groups"]

Groups = tuple[tuple[str, ...], ...]

BURST_GAP: Final = timedelta(seconds=2)
MAX_BURST: Final = 20  # a longer chain is a camera on a timer or a wrong clock, and binding it would spoil the split
MAX_COMPARED: Final = 500
MIN_GROUPS: Final = 5  # per class; fewer prefixes are kinds or sources rather than sequences
GROUPED_SHARE: Final = 0.5  # of the images of a class
MAX_GROUP_SHARE: Final = 0.34  # of the images of a class: a prefix that most share is a name, not a group
NUMBERED: Final = re.compile(r"^(?P<group>.*\d.*|.*[a-zA-Z].*)[ _\-.()]+\d+\)?$")


def group_findings(used: Sequence[ImageRecord], bound: Groups) -> Iterator[Finding]:
    """What is worth saying about groups among the images ``used``; ``bound`` are the bursts."""
    yield from _across(used, bound)
    if bound:
        paths = tuple(path for group in bound for path in group)
        yield Finding(
            code="bursts",
            severity="info",
            title=f"Images taken within {BURST_GAP.seconds} s of another by the same camera: {len(paths)}",
            why="Photographs of one moment show one scene; on both sides of a split they make a number too good.",
            advice="They are kept on one side of the split.",
            paths=paths,
            groups=bound,
        )
    yield from _named(used)


def _across(used: Sequence[ImageRecord], bound: Groups) -> Iterator[Finding]:
    group = {path: f"burst {number}" for number, paths in enumerate(bound) for path in paths}
    together: dict[str, list[ImageRecord]] = defaultdict(list)
    for image in used:
        for name in {image.group, group.get(image.path)} - {None}:
            together[str(name)].append(image)
    across = [images for images in together.values() if len({precedence(image) for image in images}) > 1]
    if across:
        groups = tuple(sorted(tuple(image.path for image in images) for images in across))
        yield Finding(
            code="groups_across_parts",
            severity="warning",
            title=f"Groups that the source itself puts in more than one part: {len(groups)}",
            why="Images of one group resemble each other: what is measured on the other part of the group is too good.",
            advice="Give every image of a group the same part.",
            paths=tuple(path for group in groups for path in group),
            groups=groups,
        )


def bursts(used: Sequence[ImageRecord]) -> Groups:
    """Images of one camera, each taken at most 2 s after the one before; at most 20 in a row, longer rows are no bursts."""
    by_camera: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for image in used:
        if image.captured_at and image.camera:
            by_camera[image.camera].append((image.captured_at, image.path))
    rows: list[list[str]] = []
    for images in by_camera.values():
        last = datetime.min
        for taken, path in sorted(images):
            if taken - last > BURST_GAP:
                rows.append([])
            rows[-1].append(path)
            last = taken
    return tuple(sorted(tuple(sorted(row)) for row in rows if 1 < len(row) <= MAX_BURST))


def name_groups(used: Sequence[ImageRecord]) -> Groups:
    """Groups that names propose, per class: images that lie in one inner folder, else whose names differ in the last number.

    A class takes part if half its images are in five or more groups, none of which holds more than a third of the class.
    """
    by_class: dict[tuple[str, str | None], list[ImageRecord]] = defaultdict(list)
    for image in used:
        by_class[image.label, image.part].append(image)
    found: list[tuple[str, ...]] = []
    for images in by_class.values():
        groups: dict[str, list[str]] = defaultdict(list)
        for image in images:
            groups[_stem(image)].append(image.path)
        several = [paths for paths in groups.values() if len(paths) > 1]
        grouped, largest = sum(map(len, several)), max(map(len, several), default=0)
        if len(several) >= MIN_GROUPS and largest <= MAX_GROUP_SHARE * len(images) and grouped >= GROUPED_SHARE * len(images):
            found += [tuple(sorted(paths)) for paths in several]
    return tuple(sorted(found))


def _stem(image: ImageRecord) -> str:
    path = PurePosixPath(image.path)
    matched = NUMBERED.match(path.stem)
    return f"{path.parent}/{matched['group'] if matched else path.stem}"


def _named(used: Sequence[ImageRecord]) -> Iterator[Finding]:
    groups = name_groups(used)
    if not groups:
        return
    within, between = _likeness(used, groups)
    alike = within > between + 0.2
    number = sum(map(len, groups))
    yield Finding(
        code="name_groups",
        severity="warning" if alike else "info",
        title=f"Images whose names look like sequences: {number} in {len(groups)}, such as {', '.join(groups[0][:3])}",
        why=f"Frames or parts of one thing should not sit on both sides of a split. Correlation of the pictures within such "
        f"a sequence is {within:.2f}, between sequences of a class {between:.2f}"
        + ("." if alike else ": the names may mean nothing."),
        advice="They are not bound by themselves. If they belong together, say so in a manifest with path,label,group.",
        groups=groups,
        facts={"num_groups": len(groups), "within": round(within, 3), "between": round(between, 3)},
    )


def _likeness(used: Sequence[ImageRecord], groups: Groups) -> tuple[float, float]:
    """Mean correlation of thumbnails: of two images of a group, and of two that are in successive groups of a class."""
    by_path = {image.path: image for image in used if image.thumbnail}
    some = groups[:: max(1, len(groups) // MAX_COMPARED)]
    known = [[by_path[path] for path in group if path in by_path] for group in some]
    known = [group for group in known if len(group) > 1]
    within = [_correlation(group[0], group[1]) for group in known]
    between = [_correlation(one[0], other[0]) for one, other in pairwise(known) if one[0].label == other[0].label]
    return float(np.mean(within)) if within else 0.0, float(np.mean(between)) if between else 0.0


def _correlation(one: ImageRecord, other: ImageRecord) -> float:
    a, b = (np.frombuffer(image.thumbnail, dtype=np.uint8).astype(np.float32) for image in (one, other))
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-6))
