"""Pictures that are one picture though their bytes differ: which of them leak, and which must stay together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from automl_tl.data.auditing.copies import precedence
from automl_tl.data.auditing.near_duplicates import near_duplicates
from automl_tl.data.records import Records
from automl_tl.values import ImageRecord, LeftOut

__all__ = ["Twins", "find_twins", "leave_out_leaks"]


@dataclass(frozen=True, slots=True)
class Twins:
    """Two images that show one picture, and how well they agree once registered (0.95 to 1)."""

    first: ImageRecord
    second: ImageRecord
    agreement: float


def find_twins(images: Records) -> tuple[Twins, ...]:
    """All near-duplicates among ``images``; needs their thumbnails."""
    with_thumbnail = "WHERE thumbnail <> x'' ORDER BY path"
    found = near_duplicates(thumbnail for (thumbnail,) in images.select("thumbnail", with_thumbnail))
    wanted = {at for pair in found for at in pair[:2]}
    path_of = {at: path for at, (path,) in enumerate(images.select("path", with_thumbnail)) if at in wanted}
    record_of = images.at(path_of.values())
    return tuple(Twins(record_of[path_of[i]], record_of[path_of[j]], agreement) for i, j, agreement in found)


def leave_out_leaks(twins: Sequence[Twins]) -> tuple[LeftOut, ...]:
    """Images that must not be learned from, or chosen by, because a given later part holds their near-duplicate."""
    found: dict[str, LeftOut] = {}
    for pair in twins:
        stays, goes = sorted((pair.first, pair.second), key=lambda image: precedence(image.part))
        if precedence(stays.part) == precedence(goes.part):
            continue
        other = "" if goes.label == stays.label else f", where it is labeled {stays.label}"
        detail = f"nearly the same picture is in the {stays.part} part: {stays.path} (agreement {pair.agreement:.2f}){other}"
        found.setdefault(goes.path, LeftOut(path=goes.path, reason="leak", detail=detail))
    return tuple(found[path] for path in sorted(found))
