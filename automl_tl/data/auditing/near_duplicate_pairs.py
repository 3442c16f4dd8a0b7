"""Near-duplicate pairs of images: which of them leak, and which must stay together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from automl_tl.data.auditing.copies import precedence
from automl_tl.data.auditing.near_duplicates import near_duplicates
from automl_tl.values import ImageRecord, LeftOut

__all__ = ["NearDuplicatePair", "find_near_duplicate_pairs", "leave_out_leaks"]


@dataclass(frozen=True, slots=True)
class NearDuplicatePair:
    """Two near-duplicate images, and how well they agree once registered (0.95 to 1)."""

    first: ImageRecord
    second: ImageRecord
    agreement: float


def find_near_duplicate_pairs(images: Sequence[ImageRecord]) -> tuple[NearDuplicatePair, ...]:
    """All near-duplicates among ``images``; needs their thumbnails."""
    shown = [image for image in images if image.thumbnail]
    pairs = near_duplicates(image.thumbnail for image in shown)
    return tuple(NearDuplicatePair(shown[i], shown[j], agreement) for i, j, agreement in pairs)


def leave_out_leaks(near_pairs: Sequence[NearDuplicatePair]) -> tuple[LeftOut, ...]:
    """Images that must not be learned from, or chosen by, because a given later part holds their near-duplicate."""
    found: dict[str, LeftOut] = {}
    for pair in near_pairs:
        stays, goes = sorted((pair.first, pair.second), key=lambda image: precedence(image.split))
        if precedence(stays.split) == precedence(goes.split):
            continue
        other = "" if goes.label == stays.label else f", where it is labeled {stays.label}"
        detail = f"a near-duplicate is in the {stays.split} part: {stays.path} (agreement {pair.agreement:.2f}){other}"
        found.setdefault(goes.path, LeftOut(path=goes.path, reason="leak", detail=detail))
    return tuple(found[path] for path in sorted(found))
