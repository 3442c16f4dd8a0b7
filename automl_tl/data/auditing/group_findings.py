"""Images that belong together though nobody said so: frames of a sequence by their names, bursts by their EXIF time.

Bursts are bound (no split parts them). Groups guessed from names are only proposed: names are too various to act upon.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Final

import numpy as np

from automl_tl.data.auditing.copies import precedence
from automl_tl.values import Finding, ImageRecord, SplitName

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
    part_of = {image.path: image.split for image in used}
    given: dict[str, list[tuple[str, SplitName | None]]] = defaultdict(list)
    for image in used:
        if image.group is not None:
            given[image.group].append((image.path, image.split))
    groups = [given[name] for name in sorted(given)]
    groups += [[(path, part_of[path]) for path in paths] for paths in bound]
    across = [[path for path, _ in group] for group in groups if len({precedence(part) for _, part in group}) > 1]
    if across:
        in_order = tuple(sorted(map(tuple, across)))
        yield Finding(
            code="groups_across_parts",
            severity="warning",
            title=f"Groups that the source itself puts in more than one part: {len(across)}",
            why="Images of one group resemble each other: what is measured on the other part of the group is too good.",
            advice="Give every image of a group the same part.",
            paths=tuple(path for group in in_order for path in group),
            groups=in_order,
        )


def bursts(used: Sequence[ImageRecord]) -> Groups:
    """Images of one camera, each taken at most 2 s after the one before; at most 20 in a row, longer rows are no bursts."""
    taken = sorted((image.camera, image.captured_at, image.path) for image in used if image.camera and image.captured_at)
    found: list[tuple[str, ...]] = []
    for _, images in groupby(taken, key=itemgetter(0)):
        last, row = datetime.min, list[str]()
        for _, when, path in images:
            if when - last > BURST_GAP:
                found += _burst(row)
                row = []
            row.append(path)
            last = when
        found += _burst(row)
    return tuple(sorted(found))


def _burst(row: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(sorted(row))] if 1 < len(row) <= MAX_BURST else []


def name_groups(used: Sequence[ImageRecord]) -> Groups:
    """Groups that names propose, per class: images that lie in one inner folder, else whose names differ in the last number.

    A class takes part if half its images are in five or more groups, none of which holds more than a third of the class.
    """
    stems: dict[tuple[str, SplitName | None], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for image in used:
        stems[image.label, image.split][_stem(image.path)].append(image.path)
    likely = (by_stem.values() for by_stem in stems.values() if _are_sequences(map(len, by_stem.values())))
    return tuple(sorted(tuple(paths) for groups in likely for paths in groups if len(paths) > 1))


def _are_sequences(sizes: Iterable[int]) -> bool:
    """Whether groups of these sizes, which make up a class, look like sequences."""
    number = grouped = largest = total = 0
    for size in sizes:
        several = size > 1
        number, grouped, total = number + several, grouped + several * size, total + size
        largest = max(largest, several * size)
    return number >= MIN_GROUPS and largest <= MAX_GROUP_SHARE * total and grouped >= GROUPED_SHARE * total


def _stem(path: str) -> str:
    folder, name = posixpath.split(posixpath.splitext(path)[0])
    matched = NUMBERED.match(name)
    return f"{folder}/{matched['group'] if matched else name}"


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
        why=f"Frames or parts of one thing should not sit on both sides of a split. Correlation of the images within such "
        f"a sequence is {within:.2f}, between sequences of a class {between:.2f}"
        + ("." if alike else ": the names may mean nothing."),
        advice="They are not bound by themselves. If they belong together, say so in a manifest with path,label,group.",
        groups=groups,
        facts={"num_groups": len(groups), "within": round(within, 3), "between": round(between, 3)},
    )


def _likeness(used: Sequence[ImageRecord], groups: Groups) -> tuple[float, float]:
    """Mean correlation of thumbnails: of two images of a group, and of two that are in successive groups of a class."""
    some = [group[:2] for group in groups[:: max(1, len(groups) // MAX_COMPARED)]]
    wanted = {path for pair in some for path in pair}
    image_of = {image.path: image for image in used if image.path in wanted}
    known = [pair for pair in ([image_of[path] for path in paths] for paths in some) if all(image.thumbnail for image in pair)]
    within = [_correlation(one, other) for one, other in known]
    between = [_correlation(one[0], other[0]) for one, other in pairwise(known) if one[0].label == other[0].label]
    return float(np.mean(within)) if within else 0.0, float(np.mean(between)) if between else 0.0


def _correlation(one: ImageRecord, other: ImageRecord) -> float:
    a, b = (np.frombuffer(image.thumbnail, dtype=np.uint8).astype(np.float32) for image in (one, other))
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-6))
