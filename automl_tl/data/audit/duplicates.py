"""Images that occur more than once: byte copies and near-duplicates, which of them are left out, and what to say about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from automl_tl.data.audit.augmentations import AUGMENTED
from automl_tl.data.audit.groups import join_groups, precedence
from automl_tl.data.audit.near_duplicates import find_near_duplicates
from automl_tl.values import Finding, ImageRecord, LeftOut

MANY: Final = 0.05  # of the images: a dataset with more near-duplicates is smaller than it looks


class NearDuplicatePair(NamedTuple):
    """Two near-duplicate images, and their correlation once registered (0.95 to 1)."""

    first: ImageRecord
    second: ImageRecord
    agreement: float


def near_duplicate_pairs(images: Sequence[ImageRecord], thumbnails: Mapping[str, bytes]) -> tuple[NearDuplicatePair, ...]:
    """Find all near-duplicates.

    Args:
        images: to compare; those without a thumbnail are passed over.
        thumbnails: of the images, by digest.
    """
    images = [image for image in images if image.digest in thumbnails]
    pairs = find_near_duplicates(len(images), lambda place: thumbnails[images[place].digest])
    return tuple(NearDuplicatePair(images[i], images[j], agreement) for i, j, agreement in pairs)


def leave_out_copies(images: Sequence[ImageRecord]) -> tuple[LeftOut, ...]:
    """Images that must not be used because of others with the same bytes, sorted by path.

    Reasons: ``copy`` (one with the same label stays), ``conflicting_label`` (labels disagree, none stays) and ``leak`` (the
    copy in test, or in validation, stays).
    """
    by_digest = sorted(images, key=lambda image: (image.digest, image.path))
    groups = (list(copies) for _, copies in groupby(by_digest, key=lambda image: image.digest))
    rows = [row for copies in groups if len(copies) > 1 for row in _judge(copies)]
    return tuple(sorted(rows, key=lambda row: row.path))


def _judge(copies: Sequence[ImageRecord]) -> Iterator[LeftOut]:
    by_rank: dict[int, list[ImageRecord]] = defaultdict(list)
    for image in copies:
        by_rank[precedence(image.split)].append(image)
    if any(len({image.label for image in images}) > 1 for images in by_rank.values()):
        for image in copies:
            others = ", ".join(f"{other.label} ({other.path})" for other in copies if other.label != image.label)
            yield LeftOut(path=image.path, reason="conflicting_label", detail=f"the same bytes are also labeled {others}")
        return
    stays = by_rank[min(by_rank)][0]
    for image in copies:
        if image is stays:
            continue
        if precedence(image.split) == precedence(stays.split):
            yield LeftOut(path=image.path, reason="copy", detail=f"the same bytes as {stays.path}")
        else:
            detail = f"the same bytes are in the {stays.split} split: {stays.path}{_other_label(image, stays)}"
            yield LeftOut(path=image.path, reason="leak", detail=detail)


def leave_out_leaks(near_pairs: Sequence[NearDuplicatePair]) -> tuple[LeftOut, ...]:
    """Images of which a given test or validation split holds a near-duplicate, sorted by path."""
    rows: dict[str, LeftOut] = {}
    for first, second, agreement in near_pairs:
        stays, goes = sorted((first, second), key=lambda image: precedence(image.split))
        if precedence(stays.split) != precedence(goes.split):
            detail = f"a near-duplicate is in the {stays.split} split: {stays.path} (agreement {agreement:.2f})"
            row = LeftOut(path=goes.path, reason="leak", detail=detail + _other_label(goes, stays))
            rows.setdefault(goes.path, row)
    return tuple(rows[path] for path in sorted(rows))


def _other_label(goes: ImageRecord, stays: ImageRecord) -> str:
    return "" if goes.label == stays.label else f", where it is labeled {stays.label}"


def duplicate_findings(
    images: Sequence[ImageRecord], left_out: Sequence[LeftOut], near_pairs: Sequence[NearDuplicatePair]
) -> Iterator[Finding]:
    """Find copies, conflicting labels, leaks and near-duplicates.

    Args:
        images: of the scan, left out or not.
        left_out: copies and leaks among them.
        near_pairs: pairs of near-duplicates.

    Yields:
        Findings, each with all its images.
    """
    yield from _copies(images, tuple(row.path for row in left_out if row.reason == "copy"))
    yield from _conflicts(images, tuple(row.path for row in left_out if row.reason == "conflicting_label"))
    yield from _leaks([row for row in left_out if row.reason == "leak"])
    yield from _near_duplicates(len(images), near_pairs)


def _copies(images: Sequence[ImageRecord], paths: tuple[str, ...]) -> Iterator[Finding]:
    if paths:
        yield Finding(
            code="exact_copies",
            severity="info",
            title=f"Byte copies of other images of their class, left out: {len(paths)}",
            why="An image that counts twice weighs twice, and may sit on both sides of a split.",
            advice="Delete the copies when convenient.",
            paths=paths,
            groups=_same_bytes(images, paths),
        )


def _conflicts(images: Sequence[ImageRecord], paths: tuple[str, ...]) -> Iterator[Finding]:
    if paths:
        groups = _same_bytes(images, paths)
        yield Finding(
            code="conflicting_labels",
            severity="warning",
            title=f"Images with more than one label: {len(groups)} (files left out: {len(paths)})",
            why="Whatever the model predicts for them is wrong for one of the labels.",
            advice="Decide on one label for each and delete the other files.",
            paths=paths,
            groups=groups,
        )


def _leaks(rows: Sequence[LeftOut]) -> Iterator[Finding]:
    if rows:
        exact = sum(row.detail.startswith("the same bytes") for row in rows)
        augmented = sum(row.detail.startswith(AUGMENTED) for row in rows)
        near = len(rows) - exact - augmented
        yield Finding(
            code="leaks",
            severity="warning",
            title=f"Images that are also in a given test or validation split, left out: {len(rows)} "
            f"(byte copies {exact}, near-duplicates {near}" + (f", augmentations {augmented})" if augmented else ")"),
            why="A model that has seen the test images scores better than it is.",
            advice="Nothing to do: the test split stays whole. Numbers measured elsewhere on this split are too good.",
            paths=tuple(row.path for row in rows),
            facts={"exact": exact, "near": near} | ({"augmented": augmented} if augmented else {}),
        )


def _near_duplicates(num_images: int, near_pairs: Sequence[NearDuplicatePair]) -> Iterator[Finding]:
    if not near_pairs:
        return
    pairs = [(first.path, second.path) for first, second, _ in near_pairs]
    paths = tuple(sorted({path for pair in pairs for path in pair}))
    yield Finding(
        code="near_duplicates",
        severity="warning" if len(paths) > MANY * num_images else "info",
        title=f"Near-duplicates: {len(pairs)} near-duplicate pair{'s' * (len(pairs) > 1)} ({len(paths)} images)",
        why="Resized, recompressed or cropped copies and frames of a burst on both sides of a split make a number too good.",
        advice="They are kept on one side of the split. Each group counts little more than one image.",
        paths=paths,
        groups=tuple(join_groups(paths, pairs)),
        facts={"num_pairs": len(pairs)},
    )
    disagreeing = tuple((first.path, second.path) for first, second, _ in near_pairs if first.label != second.label)
    if disagreeing:
        yield Finding(
            code="near_duplicates_of_two_classes",
            severity="warning",
            title=f"Near-duplicate pairs with different labels: {len(disagreeing)}",
            why="One of the two labels is probably wrong.",
            advice="Review each pair and correct a label, or delete both.",
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
