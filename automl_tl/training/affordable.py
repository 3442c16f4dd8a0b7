"""What the budget has time for: as many images, and what publishing takes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Final, Protocol

import numpy as np

from automl_tl.runtime.budget import Deadline
from automl_tl.training.images import LabeledImages

__all__ = ["MIB_PER_PARAMETER", "Afterwards", "affordable", "publishing_s", "solving_s"]

FIRST_LOOK: Final = 256  # images, from which follows how long the others would take
# A new process imports torch, loads the model and predicts the probe images: where it is not known how long this process took
# to import torch, what it was on two cores; else so many times as long (DECISIONS 37).
PUBLISHING_S: Final = 5.0
PUBLISHING_PER_START: Final = 2.5
PUBLISHING_S_PER_MIB: Final = 0.03  # to write, hash, copy and load
# The averaged head and its folds, on two cores: features of 140 to 3,000 images of 2 to 25 classes took 0.4 to 2 times as long,
# made ones of up to 5,000 images and 200 classes 0.25 to 1.5 times (DECISIONS 40).
SOLVING_S: Final = 0.2
SOLVING_S_PER_IMAGE: Final = 2e-5  # times the root of rank times classes: more classes need fewer steps
MIB_PER_PARAMETER: Final = 4 / 2**20  # float32


def publishing_s(size_mib: float, starting_s: float | None) -> float:
    """Seconds from the last weight to the registered version, for files of ``size_mib``.

    ``starting_s`` is what importing torch took this process; absent where it had been imported before.
    """
    new_process_s = PUBLISHING_S if starting_s is None else PUBLISHING_PER_START * starting_s
    return new_process_s + PUBLISHING_S_PER_MIB * size_mib


def solving_s(num_images: int, feature_dim: int, num_classes: int) -> float:
    """Seconds that a head takes on features ``(num_images, feature_dim)`` that are there."""
    return SOLVING_S + SOLVING_S_PER_IMAGE * num_images * sqrt(min(num_images, feature_dim) * num_classes)


class Looks(Protocol):
    """What computes something of images and keeps it."""

    def plain(self, images: LabeledImages) -> object:
        """Compute and keep it."""

    def missing(self, images: LabeledImages) -> Sequence[int]:
        """Positions of the images that it wasn't computed of yet."""


@dataclass(frozen=True)
class Afterwards:
    """What comes when the images to learn from were looked at, in seconds: for each of them, and in all."""

    reserve_s: float
    per_image_s: float = 0.0
    num_test: int = 0  # that will have to be looked at as well


def affordable(
    images: LabeledImages, looks: Looks, deadline: Deadline, afterwards: Afterwards, *, look_s: float = 0.0
) -> LabeledImages:
    """``images``, or of each class as many as can be looked at before the deadline, chosen by their content.

    Args:
        images: to learn from.
        looks: computes what is needed of images and keeps it, so that a second look is free.
        deadline: of the command.
        afterwards: what else there has to be time for.
        look_s: what a look at one image takes, as far as that is known: where it leaves no time for a first look, the images
            that were looked at before are enough, if there are some of every class.
    """
    if deadline.left_s == inf or len(images) <= FIRST_LOOK:
        return images
    missing = set(looks.missing(images))
    class_by_class = np.argsort(images.places_in_class, kind="stable").tolist()
    new = [position for position in class_by_class if position in missing]
    first, num_there = new[:FIRST_LOOK], len(images) - len(new)
    needed_s = len(first) * look_s + _needed_s(afterwards, num_there + len(first), look_s)
    if deadline.left_s < needed_s and _has_all_classes(images, new):
        return _without(images, new)
    if len(new) == len(first):
        return images
    began_s = deadline.spent_s
    looks.plain(images.at(first))
    look_s = (deadline.spent_s - began_s) / FIRST_LOOK
    left_s = deadline.left_s - _needed_s(afterwards, num_there + FIRST_LOOK, look_s)
    num_more = max(0, int(left_s / (look_s + afterwards.per_image_s)))
    return _without(images, new[FIRST_LOOK + num_more :])


def _has_all_classes(images: LabeledImages, left_out: Sequence[int]) -> bool:
    there = np.delete(images.labels, left_out)
    return len(np.unique(there)) == len(np.unique(images.labels))


def _needed_s(afterwards: Afterwards, num_images: int, look_s: float) -> float:
    return afterwards.reserve_s + num_images * afterwards.per_image_s + afterwards.num_test * look_s


def _without(images: LabeledImages, left_out: Sequence[int]) -> LabeledImages:
    if not left_out:
        return images
    there = set(range(len(images))) - set(left_out)
    return images.at(sorted(there))
