"""Byte-for-byte copies: which one is used, and why the others are left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

from automl_tl.values import ImageRecord, LeftOut, SplitName

__all__ = ["PRECEDENCE", "leave_out_copies", "precedence"]

PRECEDENCE: Final = {"test": 0, "validation": 1, "train": 2}
"""Between given parts the first one keeps an image: a test part is never reduced because train holds a copy."""


def precedence(part: SplitName | None) -> int:
    """Rank of the part that the source gives an image; none given counts as train."""
    return PRECEDENCE[part or "train"]


def leave_out_copies(images: Sequence[ImageRecord]) -> tuple[LeftOut, ...]:
    """Every image that must not be used because of an image with the same bytes, sorted by path.

    Reasons: ``copy`` (one with the same label stays), ``conflicting_label`` (labels disagree, none stays) and ``leak`` (the
    copy in test, or in validation, stays).
    """
    rows = sorted(images, key=lambda image: (image.digest, image.path))
    groups = (list(same) for _, same in groupby(rows, key=lambda image: image.digest))
    found = [row for same in groups if len(same) > 1 for row in _judge(same)]
    return tuple(sorted(found, key=lambda row: row.path))


def _judge(same: Sequence[ImageRecord]) -> Iterable[LeftOut]:
    by_rank: dict[int, list[ImageRecord]] = defaultdict(list)
    for image in same:
        by_rank[precedence(image.split)].append(image)
    if any(len({image.label for image in images}) > 1 for images in by_rank.values()):
        for image in same:
            others = ", ".join(f"{other.label} ({other.path})" for other in same if other.label != image.label)
            yield LeftOut(path=image.path, reason="conflicting_label", detail=f"the same bytes are also labeled {others}")
        return
    stays = by_rank[min(by_rank)][0]
    for image in same:
        if image is stays:
            continue
        if precedence(image.split) != precedence(stays.split):
            other = "" if image.label == stays.label else f", where it is labeled {stays.label}"
            yield LeftOut(
                path=image.path, reason="leak", detail=f"the same bytes are in the {stays.split} part: {stays.path}{other}"
            )
        else:
            yield LeftOut(path=image.path, reason="copy", detail=f"the same bytes as {stays.path}")
