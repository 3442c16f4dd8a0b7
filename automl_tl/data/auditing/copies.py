"""Byte-for-byte copies: which one is used, and why the others are left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from automl_tl.values import DatasetIndex, ImageRecord, LeftOut

__all__ = ["PRECEDENCE", "leave_out_copies", "precedence"]

PRECEDENCE: Final = {"test": 0, "validation": 1, "train": 2}
"""Between given parts the first one keeps a picture: a test part is never reduced because train holds a twin."""


def precedence(image: ImageRecord) -> int:
    """Rank of the part that the source gives the image; none given counts as train."""
    return PRECEDENCE[image.part or "train"]


def leave_out_copies(index: DatasetIndex) -> tuple[LeftOut, ...]:
    """Every image that must not be used because of an image with the same bytes, sorted by path.

    Reasons: ``copy`` (one with the same label stays), ``conflicting_label`` (labels disagree, none stays) and ``leak`` (the
    copy in test, or in validation, stays).
    """
    by_digest: dict[str, list[ImageRecord]] = defaultdict(list)
    for image in sorted(index.images, key=lambda image: image.path):
        by_digest[image.digest].append(image)
    found = [row for same in by_digest.values() if len(same) > 1 for row in _judge(same)]
    return tuple(sorted(found, key=lambda row: row.path))


def _judge(same: Sequence[ImageRecord]) -> Iterable[LeftOut]:
    by_rank: dict[int, list[ImageRecord]] = defaultdict(list)
    for image in same:
        by_rank[precedence(image)].append(image)
    if any(len({image.label for image in images}) > 1 for images in by_rank.values()):
        for image in same:
            others = ", ".join(f"{other.label} ({other.path})" for other in same if other.label != image.label)
            yield LeftOut(path=image.path, reason="conflicting_label", detail=f"the same bytes are also labelled {others}")
        return
    stays = by_rank[min(by_rank)][0]
    for image in same:
        if image is stays:
            continue
        if precedence(image) != precedence(stays):
            other = "" if image.label == stays.label else f", where it is labelled {stays.label}"
            yield LeftOut(
                path=image.path, reason="leak", detail=f"the same bytes are in the {stays.part} part: {stays.path}{other}"
            )
        else:
            yield LeftOut(path=image.path, reason="copy", detail=f"the same bytes as {stays.path}")
