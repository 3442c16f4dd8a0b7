"""Images that belong together: bursts by EXIF time, sequences by file name, and groups that share a member.

Bursts are kept in one split. Groups guessed from names are only proposed: names are too various to act upon.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Final

import numpy as np

from automl_tl.errors import DataError
from automl_tl.values import DatasetIndex, Finding, ImageRecord, SplitName

Groups = tuple[tuple[str, ...], ...]

BURST_GAP: Final = timedelta(seconds=2)
MAX_BURST: Final = 20  # a longer chain is a camera on a timer or a wrong clock, and keeping it together would spoil the split
MAX_COMPARED: Final = 500
MIN_GROUPS: Final = 5  # per class; fewer prefixes are kinds or sources rather than sequences
GROUPED_SHARE: Final = 0.5  # of the images of a class
MAX_GROUP_SHARE: Final = 0.34  # of the images of a class: a prefix that most share is a name, not a group
NUMBERED: Final = re.compile(r"^(?P<group>.*\d.*|.*[a-zA-Z].*)[ _\-.()]+\d+\)?$")


def precedence(split: SplitName | None) -> int:
    """Rank of a given split; the first one keeps an image, so that a test split is never reduced because train has a copy."""
    return ("test", "validation", "train").index(split or "train")


def join_groups(members: Iterable[str], groups: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Put each member in one tuple with all that share a group with it, directly or through others.

    Args:
        members: names; names in ``groups`` that are none of them are ignored.
        groups: names that belong together; a name may be in several.

    Returns:
        Sorted groups, also of one member; the order of the input does not matter.
    """
    parent = {member: member for member in members}  # union-find

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for group in groups:
        known = [name for name in group if name in parent]
        for name in known[1:]:
            parent[root(name)] = root(known[0])
    joined: dict[str, list[str]] = defaultdict(list)
    for member in sorted(parent):
        joined[root(member)].append(member)
    return sorted(map(tuple, joined.values()))


def group_images(index: DatasetIndex, group_by: str | None, column: Mapping[str, str] | None = None) -> DatasetIndex:
    """Give every image the group that the user asks for; images without one stay alone.

    Args:
        index: of the scan.
        group_by: ``folder``, ``none`` (also without the groups that the source gives), or a regular expression on the path,
            of which the first group in parentheses or else the whole match counts. ``order`` and ``None`` change nothing.
        column: value of the table's column of this name by path, if there is one; then ``group_by`` is not an expression.

    Raises:
        DataError: it is not an expression, matches nothing, or leaves a class with a single group.
    """
    if group_by in (None, "order"):
        return index
    if group_by == "none":
        groups: dict[str, str | None] = {}
    elif group_by == "folder":
        groups = {image.path: posixpath.dirname(image.path) for image in index.images}
    elif column is not None:
        groups = {image.path: column.get(image.path) or None for image in index.images}
    else:
        groups = _match_groups(index, str(group_by))
    images = tuple(replace(image, group=groups.get(image.path)) for image in index.images)
    units: dict[str, set[str]] = defaultdict(set)
    for image in images:
        units[image.label].add(f"group {image.group}" if image.group else f"image {image.path}")
    if whole := sorted(label for label, names in units.items() if len(names) == 1):
        num_images = sum(image.label in whole for image in images)
        if num_images > len(whole):
            raise DataError(
                f"--group-by {group_by}: all images of {', '.join(whole[:5])} are in one group, and a group is never split. "
                "Expected several groups in each class; choose another folder level, REGEX or COLUMN."
            )
    return index.model_copy(update={"images": images})


def _match_groups(index: DatasetIndex, pattern: str) -> dict[str, str | None]:
    expected = "order, folder, none, a column of the table of images, or a regular expression on their paths"
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--group-by {pattern}: not a regular expression ({error}); expected {expected}.") from error
    matches = {image.path: expression.search(image.path) for image in index.images}
    groups = {path: (match[1] if expression.groups else match[0]) or None for path, match in matches.items() if match}
    if index.images and not any(groups.values()):
        raise DataError(
            f"--group-by {pattern}: no path matches, such as {index.images[0].path}, and no column has this name; "
            f"expected {expected}."
        )
    return groups


def given_group_findings(used: Sequence[ImageRecord], group_by: str | None) -> Iterator[Finding]:
    """Yield how images are grouped because the user asks for it.

    Args:
        used: the images.
        group_by: of ``group_images``.
    """
    if group_by in (None, "order", "none"):
        return
    sizes = Counter(image.group for image in used if image.group is not None)
    if not sizes:
        return
    num_alone = len(used) - sizes.total()
    alone = f"; {num_alone} images without a group are alone" if num_alone else ""
    yield Finding(
        code="grouped",
        severity="info",
        title=f"Images grouped by {group_by}: {len(sizes)} groups of {min(sizes.values())} to {max(sizes.values())}{alone}",
        why="Images of a group stay in one split and in one fold of the cross-validation.",
        advice="Nothing to do.",
        facts={"num_groups": len(sizes), "num_alone": num_alone},
    )


def find_bursts(used: Sequence[ImageRecord]) -> Groups:
    """Images of one camera, each taken at most 2 s after the one before; at most 20 in a row, longer rows are not bursts."""
    shots = sorted((image.camera, image.captured_at, image.path) for image in used if image.camera and image.captured_at)
    rows: list[list[str]] = [[path] for _, _, path in shots[:1]]
    for (camera, before, _), (other_camera, at, path) in pairwise(shots):
        if camera == other_camera and at - before <= BURST_GAP:
            rows[-1].append(path)
        else:
            rows.append([path])
    return tuple(sorted(tuple(sorted(row)) for row in rows if 1 < len(row) <= MAX_BURST))


def name_groups(used: Sequence[ImageRecord]) -> Groups:
    """Groups per class that names suggest: images of one inner folder, else whose names differ in the last number.

    A class takes part if half its images are in five or more groups, none of which holds more than a third of the class.
    """
    stems: dict[tuple[str, SplitName | None], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for image in used:
        stems[image.label, image.split][_stem(image.path)].append(image.path)
    groups: list[tuple[str, ...]] = []
    for by_stem in stems.values():
        sequences = [tuple(paths) for paths in by_stem.values() if len(paths) > 1]
        sizes, total = [len(paths) for paths in sequences], sum(map(len, by_stem.values()))
        if len(sizes) >= MIN_GROUPS and max(sizes) <= MAX_GROUP_SHARE * total and sum(sizes) >= GROUPED_SHARE * total:
            groups += sequences
    return tuple(sorted(groups))


def _stem(path: str) -> str:
    folder, name = posixpath.split(posixpath.splitext(path)[0])
    match = NUMBERED.match(name)
    return f"{folder}/{match['group'] if match else name}"


def group_findings(
    used: Sequence[ImageRecord],
    bursts: Groups,
    unnamed: Sequence[ImageRecord],
    thumbnails: Mapping[str, bytes],
    *,
    kept_together: bool = False,
) -> Iterator[Finding]:
    """Yield findings about groups.

    Args:
        used: the images.
        bursts: groups of ``find_bursts``.
        unnamed: those of the images whose names do not say yet that they are augmentations.
        thumbnails: of the images, by digest, to tell sequences from mere names.
        kept_together: whether the split cuts no sequence, because it is by blocks.
    """
    yield from _across_splits(used, bursts)
    if bursts:
        paths = tuple(path for group in bursts for path in group)
        yield Finding(
            code="bursts",
            severity="info",
            title=f"Images taken within {BURST_GAP.seconds} s of another by the same camera: {len(paths)}",
            why="Photographs of one moment show one scene; on both sides of a split they make a number too good.",
            advice="They are kept on one side of the split.",
            paths=paths,
            groups=bursts,
        )
    yield from _sequences(unnamed, thumbnails, kept_together)


def _across_splits(used: Sequence[ImageRecord], bursts: Groups) -> Iterator[Finding]:
    split_of = {image.path: image.split for image in used}
    given_groups: dict[str, list[str]] = defaultdict(list)
    for image in used:
        if image.group is not None:
            given_groups[image.group].append(image.path)
    groups = [*map(tuple, given_groups.values()), *bursts]
    across = tuple(sorted(paths for paths in groups if len({precedence(split_of[path]) for path in paths}) > 1))
    if across:
        yield Finding(
            code="groups_across_splits",
            severity="warning",
            title=f"Groups that the source itself puts in more than one split: {len(across)}",
            why="Images of one group resemble each other: what is measured on the rest of the group is too good.",
            advice="Give every image of a group the same split.",
            paths=tuple(path for group in across for path in group),
            groups=across,
        )


def _sequences(used: Sequence[ImageRecord], thumbnails: Mapping[str, bytes], kept_together: bool) -> Iterator[Finding]:
    groups = name_groups(used)
    if not groups:
        return
    within, between = _correlations(used, groups, thumbnails)
    similar = within > between + 0.2
    number = sum(map(len, groups))
    yield Finding(
        code="name_groups",
        severity="warning" if similar and not kept_together else "info",
        title=f"Images whose names look like sequences: {number} in {len(groups)}, such as {', '.join(groups[0][:3])}",
        why=f"Frames or parts of one thing should not sit on both sides of a split. Correlation of the images within such "
        f"a sequence is {within:.2f}, between sequences of a class {between:.2f}"
        + ("." if similar else ": the names may mean nothing."),
        advice="Nothing to do; blocks of neighbors keep them together."
        if kept_together
        else "They may be split. If they belong together, say so with --group-by REGEX or a manifest with path,label,group.",
        groups=groups,
        facts={"num_groups": len(groups), "within": round(within, 3), "between": round(between, 3)},
    )


def _correlations(used: Sequence[ImageRecord], groups: Groups, thumbnails: Mapping[str, bytes]) -> tuple[float, float]:
    """Mean correlation of thumbnails: of two images of a group, and of two that are in successive groups of a class."""
    sample = [group[:2] for group in groups[:: max(1, len(groups) // MAX_COMPARED)]]
    sampled = {path for pair in sample for path in pair}
    image_of = {image.path: image for image in used if image.path in sampled and image.digest in thumbnails}
    pairs = [(image_of[one], image_of[other]) for one, other in sample if one in image_of and other in image_of]
    looks = [(thumbnails[one.digest], thumbnails[other.digest]) for one, other in pairs]
    within = [_correlation(*look) for look in looks]
    neighbors = zip(pairwise(pairs), pairwise(looks), strict=True)
    between = [_correlation(a, b) for ((one, _), (other, _)), ((a, _), (b, _)) in neighbors if one.label == other.label]
    return float(np.mean(within)) if within else 0.0, float(np.mean(between)) if between else 0.0


def _correlation(one: bytes, other: bytes) -> float:
    a, b = (np.frombuffer(thumbnail, dtype=np.uint8).astype(np.float32) for thumbnail in (one, other))
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-6))
