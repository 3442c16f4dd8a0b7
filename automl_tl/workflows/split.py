"""Split: which images train, choose and test a model; nothing is trained, and nothing is remembered."""

from __future__ import annotations

from pathlib import Path

from automl_tl import data
from automl_tl.runtime.paths import splits_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.resources import writing_to
from automl_tl.workflows.dataset import Dataset, open_corrections, remembered_grouping


def split(
    images: str | Path,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    keep: str | Path | None = None,
    corrections: str | Path | None = None,
    classes_are_folders: bool = False,
    group_by: str | None = None,
    progress: Progress = QUIET,
) -> Dataset:
    """Return the dataset with the split that ``fit`` would use: ``split`` by image digest, ``records`` and ``counts`` by split.

    Args:
        images: any source that ``fit`` reads.
        seed: random seed of the split.
        out: JSON file to write the split to.
        keep: split written by ``out`` whose assignments are kept; by default that of the last fit.
        corrections: file of decisions about single images, as `tl review` writes it; applied by image digest.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.
        group_by: ``order``, ``folder``, a regular expression on the path, a column of the table, or ``none``; absent: as in
            the last fit, else by order where it predicts similarity.
        progress: receives progress.

    Raises:
        DataError: the images or the saved split cannot be used.
        OSError: ``out`` cannot be written.
    """
    saved = data.read_split(Path(keep)) if keep else None
    source = data.open_source(images, classes_are_folders=classes_are_folders, progress=progress)
    decisions = open_corrections(images, corrections, progress)
    group_by = group_by or remembered_grouping(source, seed, saved)
    index, report = data.scan_and_audit(source, progress, corrections=decisions, group_by=group_by)
    data.check_learnable(index, report)
    assignment, report = data.assign_splits(index, report, seed=seed, saved=saved, folder=splits_dir(), group_by=group_by)
    if out is not None:
        with writing_to(Path(out)):
            Path(out).write_text(assignment.model_dump_json(indent=2), encoding="utf-8")
    return Dataset(source, index, report, assignment)
