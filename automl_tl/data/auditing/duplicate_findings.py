"""Findings about images that occur more than once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from automl_tl.data.auditing.near_duplicate_pairs import NearDuplicatePair
from automl_tl.data.joining import join
from automl_tl.values import Finding, ImageRecord, LeftOut

__all__ = ["duplicate_findings"]

MANY: Final = 0.05  # of the images: a set with more near-duplicates is smaller than it looks


def duplicate_findings(
    images: Sequence[ImageRecord], left_out: Sequence[LeftOut], near_pairs: Sequence[NearDuplicatePair]
) -> Iterator[Finding]:
    """What is worth saying about copies, conflicts, leaks and near-duplicates among ``images``."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for row in left_out:
        by_reason[row.reason].append(row.path)
    yield from _copies(images, by_reason["copy"])
    yield from _conflicts(images, by_reason["conflicting_label"])
    yield from _leaks(by_reason["leak"], left_out)
    yield from _near(images, near_pairs)


def _copies(images: Sequence[ImageRecord], paths: Sequence[str]) -> Iterator[Finding]:
    if paths:
        yield Finding(
            code="exact_copies",
            severity="info",
            title=f"Byte copies of other images of their class, left out: {len(paths)}",
            why="An image that counts twice weighs twice, and may sit on both sides of a split.",
            advice="Delete the copies when convenient.",
            paths=tuple(paths),
            groups=_same_bytes(images, paths),
        )


def _conflicts(images: Sequence[ImageRecord], paths: Sequence[str]) -> Iterator[Finding]:
    if paths:
        groups = _same_bytes(images, paths)
        yield Finding(
            code="conflicting_labels",
            severity="warning",
            title=f"Images with more than one label: {len(groups)} (files left out: {len(paths)})",
            why="Whatever the model says of them is wrong for one of the labels.",
            advice="Decide on one label for each and delete the other files.",
            paths=tuple(paths),
            groups=groups,
        )


def _leaks(paths: Sequence[str], left_out: Sequence[LeftOut]) -> Iterator[Finding]:
    if paths:
        exact = sum(row.detail.startswith("the same bytes") for row in left_out if row.reason == "leak")
        yield Finding(
            code="leaks",
            severity="warning",
            title=f"Images that are also in a given test or validation part, left out: {len(paths)} "
            f"(byte copies {exact}, near-duplicates {len(paths) - exact})",
            why="A model that has seen the test images scores better than it is.",
            advice="Nothing must be done: the test part stays whole. Numbers measured elsewhere on this split are too good.",
            paths=tuple(paths),
            facts={"exact": exact, "near": len(paths) - exact},
        )


def _near(images: Sequence[ImageRecord], near_pairs: Sequence[NearDuplicatePair]) -> Iterator[Finding]:
    pairs = [(pair.first.path, pair.second.path) for pair in near_pairs]
    paths = tuple(sorted({path for pair in pairs for path in pair}))
    if not paths:
        return
    yield Finding(
        code="near_duplicates",
        severity="warning" if len(paths) > MANY * len(images) else "info",
        title=f"Near-duplicates: {len(pairs)} near-duplicate pair{'s' * (len(pairs) > 1)} ({len(paths)} images)",
        why="Resized, recompressed or cropped copies and frames of a burst on both sides of a split make a number too good.",
        advice="They are kept on one side of the split. Each group counts little more than one image.",
        paths=paths,
        groups=tuple(join(paths, pairs)),
        facts={"num_pairs": len(pairs)},
    )
    disagreeing = tuple((pair.first.path, pair.second.path) for pair in near_pairs if pair.first.label != pair.second.label)
    if disagreeing:
        yield Finding(
            code="near_duplicates_of_two_classes",
            severity="warning",
            title=f"Near-duplicate pairs with different labels: {len(disagreeing)}",
            why="One of the two labels is probably wrong.",
            advice="Look at each pair and correct a label, or delete both.",
            paths=tuple(sorted({path for pair in disagreeing for path in pair})),
            groups=disagreeing,
        )


def _same_bytes(images: Sequence[ImageRecord], paths: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    copied = set(paths)
    groups: dict[str, list[str]] = {image.digest: [] for image in images if image.path in copied}
    for image in images:
        if image.digest in groups:
            groups[image.digest].append(image.path)
    return tuple(sorted(map(tuple, groups.values())))
