"""What the budget has time for: as many images, and what publishing takes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import Final, Protocol

from automl_tl.clock import Deadline
from automl_tl.training.images import LabelledImages

__all__ = ["MIB_PER_PARAMETER", "affordable", "publishing_s"]

FIRST_LOOK: Final = 256  # images, from which follows how long the others would take
# A new process imports torch, loads the model and predicts the probe images; two cores.
PUBLISHING_S: Final = 7.0
PUBLISHING_S_PER_MIB: Final = 0.03  # to write, hash, copy and load
MIB_PER_PARAMETER: Final = 4 / 2**20  # float32


def publishing_s(size_mib: float) -> float:
    """Seconds from the last weight to the registered version, for files of ``size_mib``."""
    return PUBLISHING_S + PUBLISHING_S_PER_MIB * size_mib


class Looks(Protocol):
    """What computes something of images and keeps it."""

    def plain(self, images: LabelledImages) -> object:
        """Compute and keep it."""

    def missing(self, images: LabelledImages) -> Sequence[int]:
        """Positions of the images that it wasn't computed of yet."""


def affordable(images: LabelledImages, looks: Looks, deadline: Deadline, *, num_test: int, reserve_s: float) -> LabelledImages:
    """``images``, or of each class as many as can be looked at before the deadline, chosen by their content.

    Args:
        images: to learn from.
        looks: computes what is needed of images and keeps it, so that a second look is free.
        deadline: of the command.
        num_test: images that will have to be looked at as well.
        reserve_s: for what comes afterwards.
    """
    if deadline.left_s == inf or len(images) <= FIRST_LOOK:
        return images
    missing = set(looks.missing(images))
    new = [position for position in _class_by_class(images) if position in missing]
    if len(new) <= FIRST_LOOK:
        return images
    began_s = deadline.spent_s
    looks.plain(images.at(new[:FIRST_LOOK]))
    per_image_s = (deadline.spent_s - began_s) / FIRST_LOOK
    left_s = deadline.left_s - reserve_s - num_test * per_image_s
    if left_s >= per_image_s * (len(new) - FIRST_LOOK):
        return images
    too_many = set(new[FIRST_LOOK + max(0, int(left_s / per_image_s)) :])
    return images.at([position for position in range(len(images)) if position not in too_many])


def _class_by_class(images: LabelledImages) -> list[int]:
    """Positions so that any beginning of the list has about equally many of each class."""
    turn: Counter[int] = Counter()
    ranked = []
    for position in sorted(range(len(images)), key=lambda position: images.records[position].digest):
        label = int(images.labels[position])
        ranked.append((turn[label], position))
        turn[label] += 1
    return [position for _, position in sorted(ranked)]
