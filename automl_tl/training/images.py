"""Images to learn from or to evaluate on, with labels and groups as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automl_tl.data.workers import Workers
from automl_tl.models.engines import Read
from automl_tl.values import DataReport, ImageRecord, SplitName


@dataclass(frozen=True)
class LabeledImages:
    """Images with class indices ``labels`` ``(N,)`` and group numbers ``groups`` ``(N,)``, both int64."""

    records: tuple[ImageRecord, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    read: Read
    workers: Workers | None = None  # that read the same images elsewhere

    def __len__(self) -> int:
        return len(self.records)

    @property
    def paths(self) -> tuple[str, ...]:
        """Path of each image."""
        return tuple(record.path for record in self.records)

    @property
    def digests(self) -> tuple[str, ...]:
        """sha256 of each file."""
        return tuple(record.digest for record in self.records)

    @property
    def places_in_class(self) -> NDArray[np.int64]:
        """Rank ``(N,)`` of each image in its class, by content, so that adding images changes low ranks little."""
        places, taken = np.empty(len(self), np.int64), Counter[int]()
        for position in sorted(range(len(self)), key=lambda position: self.records[position].digest):
            label = int(self.labels[position])
            places[position] = taken[label]
            taken[label] += 1
        return places

    def positions_in(self, others: LabeledImages) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the positions ``(M,)`` of the images that ``others`` have as well, and their positions ``(M,)`` there."""
        row_of, digests = {digest: row for row, digest in enumerate(others.digests)}, self.digests
        own = [position for position, digest in enumerate(digests) if digest in row_of]
        return np.array(own, dtype=np.int64), np.array([row_of[digests[position]] for position in own], dtype=np.int64)

    def at(self, positions: Sequence[int] | NDArray[np.integer]) -> LabeledImages:
        """The images at ``positions``."""
        index = np.asarray(positions, dtype=np.int64)
        records = tuple(self.records[position] for position in positions)
        return LabeledImages(records, self.labels[index], self.groups[index], self.read, self.workers)

    def __add__(self, other: LabeledImages) -> LabeledImages:
        labels, groups = (np.concatenate(pair) for pair in ((self.labels, other.labels), (self.groups, other.groups)))
        return LabeledImages(self.records + other.records, labels, groups, self.read, self.workers)


def label_images(
    splits: Mapping[SplitName, Sequence[ImageRecord]],
    classes: Sequence[str],
    report: DataReport,
    read: Read,
    workers: Workers | None = None,
) -> dict[SplitName, LabeledImages]:
    """Return the images of each split with numbered classes and groups; an image alone is a group of its own.

    Args:
        splits: records of each split.
        classes: names, in the order of the model's outputs.
        report: of the audit; gives the groups.
        read: returns the bytes of a file by path.
        workers: read the same images elsewhere.
    """
    number_of = {name: number for number, name in enumerate(classes)}
    group_of = {path: number for number, paths in enumerate(report.groups) for path in paths}
    alone = iter(range(len(report.groups), 2**62))
    return {
        split: LabeledImages(
            tuple(records),
            np.array([number_of[record.label] for record in records], dtype=np.int64),
            np.array([group_of[r.path] if r.path in group_of else next(alone) for r in records], dtype=np.int64),
            read,
            workers,
        )
        for split, records in splits.items()
    }
