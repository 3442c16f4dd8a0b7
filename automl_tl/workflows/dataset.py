"""Load a dataset: open the source, scan it, audit it and split it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from automl_tl import data
from automl_tl.data.decoding import decode
from automl_tl.errors import UndecodableError
from automl_tl.runtime.paths import cache_dir, splits_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import DataReport, DatasetIndex, ImageRecord, SplitAssignment, SplitName

if TYPE_CHECKING:
    from automl_tl.training import LabeledImages

__all__ = ["Dataset", "load_dataset", "read_thumbnail"]

THUMBNAIL_PX: Final = 160


@dataclass(frozen=True)
class Dataset:
    """A source of labeled images that has been scanned, audited and split."""

    source: data.Source
    index: DatasetIndex
    report: DataReport
    split: SplitAssignment

    @cached_property
    def parts(self) -> dict[SplitName, tuple[ImageRecord, ...]]:
        """The records of each split."""
        return data.images_by_split(self.index, self.report, self.split)

    @cached_property
    def images(self) -> dict[SplitName, LabeledImages]:
        """The images of each split with integer labels, ready for training."""
        from automl_tl.training import label_images

        return label_images(self.parts, self.index.classes, self.report, self.source.read)

    @property
    def counts(self) -> dict[str, int]:
        """Number of files per destination: the splits, ``left_out``, ``rejected`` and ``ignored``."""
        return {
            **{part: len(images) for part, images in self.parts.items()},
            "left_out": len(self.report.left_out),
            "rejected": len(self.index.rejected),
            "ignored": sum(self.index.ignored.values()),
        }

    @property
    def facts(self) -> dict[str, JsonValue]:
        """The facts about the data that a model version records."""
        return {
            "source": self.index.source,
            "fingerprint": self.report.fingerprint,
            "counts": dict(self.counts),
            "test_given": self.split.test_given,
        }


def load_dataset(images: Path, *, seed: int, must_be_learnable: bool = True, progress: Progress = QUIET) -> Dataset:
    """Read, check and split the images at ``images``.

    Args:
        images: folder, table, archive or dataset file.
        seed: random seed of the split.
        must_be_learnable: raise if there are too few classes or images to train and test on, and show every warning.
        progress: receives the counts and the warnings of the data report.

    Raises:
        DataError: the source cannot be read, or holds too few classes or images.
    """
    source = data.open_source(images)
    index = data.scan(source, cache_dir=cache_dir(), progress=progress)
    report = data.audit(index)
    if must_be_learnable:
        data.check_learnable(index, report)
    split, report = data.divide(index, report, seed=seed, folder=splits_dir())
    dataset = Dataset(source, index, report, split)
    if must_be_learnable:
        data.check_measurable(dataset.parts)
        counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in dataset.counts.items() if number)
        progress.info(f"data: {index.num_files} files, {len(index.classes)} classes: {counts}")
        for finding in report.findings:
            if finding.severity != "info":
                progress.warn(finding.title)
    return dataset


def read_thumbnail(source: data.Source, path: str) -> bytes | None:
    """Return a JPEG of at most 160 x 160 pixels of the image at ``path``, or ``None`` if it cannot be read.

    Args:
        source: where the image is.
        path: path of the image inside the source.
    """
    try:
        image = decode(source.read(path), side_px=THUMBNAIL_PX).image
    except (OSError, KeyError, ValueError, UndecodableError):
        return None
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    target = BytesIO()
    image.save(target, "JPEG", quality=80)
    return target.getvalue()
