"""Load a dataset: scan, audit and split.

Training is imported where it is needed, because ``tl data check`` must not wait for torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from automl_tl import data
from automl_tl.contracts import Executor
from automl_tl.data.decode import decode
from automl_tl.data.workers import Workers
from automl_tl.errors import DataError, UndecodableError
from automl_tl.executors.jobs import perform
from automl_tl.executors.local import LocalExecutor
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.paths import cache_dir, splits_dir, usable_cache
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import (
    AppliedCorrections,
    DataReport,
    DatasetIndex,
    ImageRecord,
    RejectedFile,
    SplitAssignment,
    SplitName,
)

if TYPE_CHECKING:
    from automl_tl.training import LabeledImages

THUMBNAIL_PX: Final = 160


@dataclass(frozen=True)
class Dataset:
    """A source of labeled images that has been scanned, audited and split."""

    source: data.Source
    index: DatasetIndex
    report: DataReport
    split: SplitAssignment
    workers: Workers | None = None  # that read the same images elsewhere

    @cached_property
    def records(self) -> dict[SplitName, tuple[ImageRecord, ...]]:
        """The records of each split."""
        return data.images_by_split(self.index, self.report, self.split)

    @cached_property
    def images(self) -> dict[SplitName, LabeledImages]:
        """The images of each split with integer labels, ready for training."""
        from automl_tl.training import label_images

        return label_images(self.records, self.index.classes, self.report, self.source.read, self.workers)

    @property
    def counts(self) -> dict[str, int]:
        """Number of files per destination: the splits, ``left_out``, ``rejected`` and ``ignored``."""
        return {
            **{split: len(records) for split, records in self.records.items()},
            "left_out": len(self.report.left_out),
            "rejected": len(self.index.rejected),
            "ignored": sum(self.index.ignored.values()),
        }


def load_dataset(
    images: str | Path | data.Source,
    *,
    seed: int,
    must_be_learnable: bool = True,
    corrections: str | Path | None = None,
    classes_are_folders: bool = False,
    group_by: str | None = None,
    executor: Executor | None = None,
    progress: Progress = QUIET,
    deadline: Deadline | None = None,
) -> Dataset:
    """Read, check and split the images at ``images``.

    Args:
        images: folder, table, archive or dataset file, or the URL of one; or a source, of which no split is saved.
        seed: random seed of the split.
        must_be_learnable: raise if there are too few classes or images to train and test on, and show every warning.
        corrections: file of decisions about single images, as `tl review` writes it; applied by image digest.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.
        group_by: ``order``, ``folder``, a regular expression on the path, a column of the table, or ``none``; absent: as in
            the last fit, else by order where it predicts similarity.
        executor: reads and decodes the images elsewhere.
        progress: receives the counts and the warnings of the data report.
        deadline: the budget, which is not spent while images are downloaded.

    Raises:
        DataError: the source cannot be read, or holds too few classes or images.
    """
    elsewhere = None if isinstance(executor, LocalExecutor) else executor  # where each worker reads its own images
    decisions = saved_splits = workers = None
    if isinstance(images, data.Source):
        source = images
    else:
        decisions, saved_splits = open_corrections(images, corrections, progress), splits_dir()
        with deadline.paused() if deadline else nullcontext():
            source = data.open_source(
                images, classes_are_folders=classes_are_folders, fetch=elsewhere is None, progress=progress
            )
        if group_by is None:
            group_by = remembered_grouping(source, seed)
        if elsewhere is not None:
            workers = Workers(elsewhere, perform, str(images), classes_are_folders)
    index, report = data.scan_and_audit(
        source, progress, corrections=decisions, group_by=group_by, workers=workers.scan if workers else None
    )
    if must_be_learnable:
        data.check_learnable(index, report)
    split, report = data.assign_splits(index, report, seed=seed, folder=saved_splits, group_by=group_by)
    dataset = Dataset(source, index, report, split, workers)
    if must_be_learnable:
        data.check_measurable(dataset.records)
        _announce(dataset, progress)
    return dataset


def _announce(dataset: Dataset, progress: Progress) -> None:
    """Say what was read, and warn of what is wrong with it."""
    index, notes = dataset.index, dataset.split.notes
    if notes and notes[0].startswith(data.DRAWN_AGAIN):
        progress.warn(notes[0])
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in dataset.counts.items() if count)
    progress.info(f"data: {index.layout}; {index.num_files} files, {len(index.classes)} classes: {counts}")
    for finding in dataset.report.findings:
        if finding.severity != "info":
            progress.warn(finding.title)


def open_corrections(images: str | Path, file: str | Path | None, progress: Progress) -> data.Corrections | None:
    """Read the corrections of a source; without ``file``, say so if there are some beside the images.

    Args:
        images: the source.
        file: the corrections, if any.
        progress: receives a warning about corrections that are not used, or are incomplete.

    Raises:
        DataError: the file is missing, or something else.
    """
    if file is None:
        if (beside := data.corrections_file(images)).is_file():
            progress.warn(f"The corrections in {beside} are not used; --corrections {beside} applies them.")
        return None
    corrections = data.read_corrections(file)
    if corrections.incomplete:
        progress.warn(f"The last line of {file} is incomplete and does not count; the next `tl review` removes it.")
    return corrections


def remembered_grouping(source: data.Source, seed: int, saved: SplitAssignment | None = None) -> str | None:
    """The grouping by folder, expression or column that a user asked for when the images were split before, if any.

    Args:
        source: the images.
        seed: of the split.
        saved: the split. Default: that of the last fit of the same images.
    """
    saved = saved or data.saved_split(splits_dir(), source.name, seed)
    return saved.grouping if saved and saved.grouping not in ("order", "none") else None


class LabeledSource(NamedTuple):
    """Labeled images to measure a model on: files that cannot be used, all candidates, and those whose class is known."""

    source: data.Source
    rejected: tuple[RejectedFile, ...]
    candidates: tuple[ImageRecord, ...]
    known: tuple[ImageRecord, ...]
    corrections: AppliedCorrections | None


def open_labeled_images(
    images: str | Path,
    classes: Sequence[str],
    progress: Progress,
    *,
    corrections: str | Path | None = None,
    classes_are_folders: bool = False,
) -> LabeledSource:
    """Scan the images to evaluate a model on.

    Args:
        images: any source that ``fit`` reads; its test split if it names one.
        classes: of the model.
        progress: receives progress, and what was recognized.
        corrections: file of decisions about single images, as `tl review` writes it; applied by image digest.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.

    Raises:
        DataError: the source cannot be read, or no image has a class that the model knows.
    """
    decisions = open_corrections(images, corrections, progress)
    source = data.open_source(images, classes_are_folders=classes_are_folders, progress=progress)
    progress.info(f"data: {source.layout or source.kind.replace('_', ' ')}")
    index = data.scan(source, cache_dir=usable_cache(cache_dir()), progress=progress)
    index, applied = data.correct_labels(index, decisions, progress)
    excluded = {image.path for image in applied.images if image.after is None} if applied else ()
    candidates = tuple(image for image in data.images_to_measure_on(index) if image.path not in excluded)
    known = tuple(record for record in candidates if record.label in classes)
    if not known:
        labels = sorted({record.label for record in candidates})
        raise DataError(f"{images} has the classes {labels}; the model knows {list(classes)}. Rename the folders to match.")
    return LabeledSource(source, index.rejected, candidates, known, applied)


def read_thumbnail(source: data.Source, path: str) -> bytes | None:
    """Return a JPEG of at most 160 x 160 pixels, or ``None`` if the image cannot be read.

    Args:
        source: holds the image.
        path: of the image in ``source``.
    """
    try:
        return make_thumbnail(source.read(path))
    except (OSError, KeyError, ValueError, UndecodableError):
        return None


def make_thumbnail(data: bytes) -> bytes:
    """Return a JPEG of at most 160 x 160 pixels of an image file; ``UndecodableError`` if it is none."""
    image = decode(data, side_px=THUMBNAIL_PX).image
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    target = BytesIO()
    image.save(target, "JPEG", quality=80)
    return target.getvalue()
