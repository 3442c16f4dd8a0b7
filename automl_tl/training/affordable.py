"""What the budget has time for: as many images, and what publishing takes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

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


def affordable(
    images: LabelledImages, look: Callable[[LabelledImages], object], deadline: Deadline, *, num_test: int, reserve_s: float
) -> LabelledImages:
    """``images``, or of each class as many as can be looked at before the deadline, chosen by their content.

    Args:
        images: to learn from.
        look: computes what is needed of images and keeps it, so that a second look is free.
        deadline: of the command.
        num_test: images that will have to be looked at as well.
        reserve_s: for what comes afterwards.
    """
    if deadline.budget_s is None or len(images) <= FIRST_LOOK:
        return images
    order = _class_by_class(images)
    began_s = deadline.spent_s
    look(images.at(order[:FIRST_LOOK]))
    per_image_s = (deadline.spent_s - began_s) / FIRST_LOOK
    left_s = deadline.left_s - reserve_s - num_test * per_image_s
    if left_s >= per_image_s * (len(images) - FIRST_LOOK):
        return images
    return images.at(sorted(order[: FIRST_LOOK + max(0, int(left_s / per_image_s))]))


def _class_by_class(images: LabelledImages) -> list[int]:
    """Positions so that any beginning of the list has about equally many of each class."""
    turn: Counter[int] = Counter()
    ranked = []
    for position in sorted(range(len(images)), key=lambda position: images.records[position].digest):
        label = int(images.labels[position])
        ranked.append((turn[label], position))
        turn[label] += 1
    return [position for _, position in sorted(ranked)]
