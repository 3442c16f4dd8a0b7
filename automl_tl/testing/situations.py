"""Situations that a strategy may meet: every depth, every size, things known and things not known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from automl_tl.contracts import Situation

__all__ = ["DEPTHS", "every_depth", "every_size", "some"]

DEPTHS: Final = range(1, 31)

# (images, classes, smallest class, largest by smallest class): from four pictures to ImageNet
SIZES: Final = (
    (4, 2, 2, 1.0),
    (30, 3, 1, 28.0),
    (96, 3, 32, 1.0),
    (500, 100, 5, 1.0),
    (3_000, 10, 20, 60.0),
    (20_000, 37, 400, 1.4),
    (1_281_167, 1_000, 732, 1.8),
)
# (similarity, probe accuracy)
KNOWN: Final = ((None, None), (0.05, 0.3), (0.5, 0.8), (1.0, 1.0), (0.0, 0.0))


def every_depth() -> Iterator[Situation]:
    """Three sizes at each number of blocks from 1 to 30."""
    for num_blocks in DEPTHS:
        for size in (SIZES[0], SIZES[2], SIZES[5]):
            yield _situation(size, num_blocks=num_blocks)


def every_size() -> Iterator[Situation]:
    """Every size, with and without what may be unknown, at three depths."""
    for size in SIZES:
        for similarity, probe_accuracy in KNOWN:
            for num_blocks in (1, 5, 12):
                yield _situation(size, num_blocks=num_blocks, similarity=similarity, probe_accuracy=probe_accuracy)


def some() -> list[Situation]:
    """A dozen of them, for checks that ask several times."""
    return [*list(every_depth())[::13], *list(every_size())[::17]]


def _situation(
    size: tuple[int, int, int, float],
    *,
    num_blocks: int,
    similarity: float | None = None,
    probe_accuracy: float | None = None,
) -> Situation:
    num_images, num_classes, min_images_per_class, imbalance = size
    return Situation(
        num_images=num_images,
        num_classes=num_classes,
        min_images_per_class=min_images_per_class,
        imbalance=imbalance,
        num_blocks=num_blocks,
        feature_dim=1280,
        image_side_px=224,
        similarity=similarity,
        probe_accuracy=probe_accuracy,
    )
