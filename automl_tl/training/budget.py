"""How many images a budget allows to learn from, and the time that publishing takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Final, Protocol

import numpy as np

from automl_tl.runtime.budget import Deadline
from automl_tl.training.images import LabeledImages

__all__ = ["MIB_PER_PARAMETER", "RemainingWork", "affordable_images", "publishing_s", "solving_s"]

NUM_TIMED_IMAGES: Final = 256  # their extraction time predicts that of the others
# Publishing starts a process that imports torch, loads the model and checks the reference predictions: so many times as long
# as importing torch took in this process; if that is unknown, the time measured on two cores (decision 37).
PUBLISHING_S: Final = 5.0
PUBLISHING_PER_START: Final = 2.5
PUBLISHING_S_PER_MIB: Final = 0.03  # to write, hash, copy and load
# Fitting the averaged head with its folds on two cores. Real features (140 to 3,000 images, 2 to 25 classes) took 0.4 to 2
# times as long, synthetic ones (up to 5,000 images, 200 classes) 0.25 to 1.5 times (decision 40).
SOLVING_S: Final = 0.2
SOLVING_S_PER_IMAGE: Final = 2e-5  # times sqrt(rank * classes): with more classes the solver needs fewer steps
MIB_PER_PARAMETER: Final = 4 / 2**20  # float32


def publishing_s(size_mib: float, starting_s: float | None) -> float:
    """Seconds to register a trained model.

    Args:
        size_mib: size of its files in MiB.
        starting_s: seconds that importing torch took in this process; ``None`` if unknown.
    """
    new_process_s = PUBLISHING_S if starting_s is None else PUBLISHING_PER_START * starting_s
    return new_process_s + PUBLISHING_S_PER_MIB * size_mib


def solving_s(num_images: int, feature_dim: int, num_classes: int) -> float:
    """Seconds to fit a closed-form head on extracted features ``(num_images, feature_dim)``.

    Args:
        num_images: to learn from.
        feature_dim: width of the features.
        num_classes: width of the scores.
    """
    return SOLVING_S + SOLVING_S_PER_IMAGE * num_images * sqrt(min(num_images, feature_dim) * num_classes)


class FeatureSource(Protocol):
    """Extracts features of images and caches them."""

    def plain(self, images: LabeledImages) -> object:
        """Extract and cache the features."""

    def missing(self, images: LabeledImages) -> Sequence[int]:
        """Positions of the images without cached features."""


@dataclass(frozen=True)
class RemainingWork:
    """Time needed after the features of the training images are extracted.

    Attributes:
        reserve_s: seconds that do not depend on the number of images.
        per_image_s: seconds per training image.
        num_test: number of test images whose features must be extracted as well.
    """

    reserve_s: float
    per_image_s: float = 0.0
    num_test: int = 0


def affordable_images(
    images: LabeledImages, source: FeatureSource, deadline: Deadline, remaining: RemainingWork, *, extraction_s: float = 0.0
) -> LabeledImages:
    """The images whose features can be extracted before the deadline, about the same number of each class.

    Which images are taken depends on their content, not on their order.

    Args:
        images: to learn from.
        source: extracts and caches features; cached ones cost nothing.
        deadline: of the command.
        remaining: what else needs time before the deadline.
        extraction_s: estimated seconds per image. If there is no time to measure it, the images with cached features are
            enough, provided that they cover all classes.
    """
    if deadline.left_s == inf or len(images) <= NUM_TIMED_IMAGES:
        return images
    # 1) Uncached images, class by class in turn.
    missing = set(source.missing(images))
    class_by_class = np.argsort(images.places_in_class, kind="stable").tolist()
    new = [position for position in class_by_class if position in missing]
    timed, num_cached = new[:NUM_TIMED_IMAGES], len(images) - len(new)
    # 2) No time even for the timed images: use the cached ones if they cover all classes.
    needed_s = len(timed) * extraction_s + _needed_s(remaining, num_cached + len(timed), extraction_s)
    if deadline.left_s < needed_s and _has_all_classes(images, new):
        return _without(images, new)
    if len(new) == len(timed):
        return images
    # 3) Time the extraction, then take as many more images as the deadline allows.
    started_s = deadline.spent_s
    source.plain(images.at(timed))
    extraction_s = (deadline.spent_s - started_s) / NUM_TIMED_IMAGES
    left_s = deadline.left_s - _needed_s(remaining, num_cached + NUM_TIMED_IMAGES, extraction_s)
    num_more = max(0, int(left_s / (extraction_s + remaining.per_image_s)))
    return _without(images, new[NUM_TIMED_IMAGES + num_more :])


def _has_all_classes(images: LabeledImages, excluded: Sequence[int]) -> bool:
    labels = np.delete(images.labels, excluded)
    return len(np.unique(labels)) == len(np.unique(images.labels))


def _needed_s(remaining: RemainingWork, num_images: int, extraction_s: float) -> float:
    return remaining.reserve_s + num_images * remaining.per_image_s + remaining.num_test * extraction_s


def _without(images: LabeledImages, excluded: Sequence[int]) -> LabeledImages:
    if not excluded:
        return images
    return images.at(sorted(set(range(len(images))) - set(excluded)))
