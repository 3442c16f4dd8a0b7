"""What the data is like, from the scan and the audit alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from automl_tl.values import DataReport, DatasetProfile, ImageRecord, SplitName

__all__ = ["make_profile"]

GRAY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "F"})


def make_profile(parts: Mapping[SplitName, Sequence[ImageRecord]], report: DataReport) -> DatasetProfile:
    """Profile of the images in ``parts``; the test part is counted, nothing else of it is looked at."""
    learning = [*parts["train"], *parts["validation"]]
    counts = Counter(record.label for record in learning)
    grouped = sum(len(group) - 1 for group in report.groups)
    return DatasetProfile(
        num_images=len(learning),
        num_test_images=len(parts["test"]),
        num_classes=len(counts),
        images_per_class=dict(sorted(counts.items())),
        min_images_per_class=min(counts.values()),
        imbalance=max(counts.values()) / min(counts.values()),
        median_side_px=round(median(min(record.width_px, record.height_px) for record in learning)),
        max_side_px=max(max(record.width_px, record.height_px) for record in learning),
        gray_fraction=sum(record.mode in GRAY_MODES for record in learning) / len(learning),
        num_groups=sum(map(len, parts.values())) - grouped,
        num_duplicates=sum(left_out.reason == "copy" for left_out in report.left_out) + grouped,
        fingerprint=report.fingerprint,
    )
