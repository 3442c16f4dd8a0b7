"""Profile of a dataset, from its index and data report alone: no image is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from automl_tl.values import DataReport, DatasetProfile, ImageRecord, SplitName

__all__ = ["make_profile"]

GRAY_MODES: Final = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "F"})  # of Pillow


def make_profile(splits: Mapping[SplitName, Sequence[ImageRecord]], report: DataReport) -> DatasetProfile:
    """Summarize the training and validation images.

    Args:
        splits: image records by split; of the test split only the number is used.
        report: gives near-duplicate groups, excluded copies and the fingerprint.
    """
    learning = [*splits["train"], *splits["validation"]]
    counts = Counter(record.label for record in learning)
    num_grouped = sum(len(group) - 1 for group in report.groups)
    return DatasetProfile(
        num_images=len(learning),
        num_test_images=len(splits["test"]),
        num_classes=len(counts),
        images_per_class=dict(sorted(counts.items())),
        min_images_per_class=min(counts.values()),
        imbalance=max(counts.values()) / min(counts.values()),
        median_side_px=round(median(min(record.width_px, record.height_px) for record in learning)),
        max_side_px=max(max(record.width_px, record.height_px) for record in learning),
        gray_fraction=sum(record.mode in GRAY_MODES for record in learning) / len(learning),
        num_groups=sum(map(len, splits.values())) - num_grouped,
        num_duplicates=sum(excluded.reason == "copy" for excluded in report.left_out) + num_grouped,
        fingerprint=report.fingerprint,
    )
