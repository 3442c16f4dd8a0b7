"""Check: everything that is wrong with a dataset, before anything is trained.

Training is imported where it is needed, because ``tl data check`` must not wait for torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from automl_tl import data
from automl_tl.plugin_host import discover
from automl_tl.runtime.paths import cache_dir, usable_cache
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import DataReport, DatasetIndex, Value
from automl_tl.workflows.dataset import open_corrections, scan_and_audit

LABEL_BACKBONE: Final = "lite/efficientnet_lite0"  # comes with the installation; larger ones found no more (decision 19)


class DataCheck(Value):
    """The content of a source, and every problem in it."""

    index: DatasetIndex
    report: DataReport


def check(
    images: str | Path,
    *,
    labels: bool = False,
    corrections: str | Path | None = None,
    classes_are_folders: bool = False,
    progress: Progress = QUIET,
) -> DataCheck:
    """Scan and audit the images at ``images``.

    Args:
        images: any source that ``fit`` reads.
        labels: also look for label issues and outliers with a pretrained network, about 10 ms per image.
        corrections: file of decisions about single images, as `tl review` writes it; applied by image digest.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.
        progress: receives progress and warnings.

    Raises:
        DataError: the source cannot be read; with ``labels``, too few classes or images for a linear probe.
    """
    decisions = open_corrections(images, corrections, progress)
    source = data.open_source(Path(images), classes_are_folders=classes_are_folders)
    index, report = scan_and_audit(source, progress, corrections=decisions, allow_empty=True)
    if labels and index.images:
        report = _add_label_issues(source, index, report, progress)
    return DataCheck(index=index, report=report)


def _add_label_issues(source: data.Source, index: DatasetIndex, report: DataReport, progress: Progress) -> DataReport:
    """Return the data report with label issues and outliers, judged out of fold by a linear probe."""
    from automl_tl.models.bundle import build_encoder
    from automl_tl.training import label_images
    from automl_tl.training.closed_form import solve
    from automl_tl.training.views import Prefix
    from automl_tl.training.workspace import ActivationCache

    data.check_learnable(index, report)
    records = data.images_in_use(index, report)
    images = label_images({"train": records}, index.classes, report, source.read)["train"]
    backbone = discover().backbone(LABEL_BACKBONE)
    encoder = build_encoder(backbone, pretrained=True, progress=progress)
    prefix = Prefix(
        encoder, backbone.card.preprocessing, ActivationCache(usable_cache(cache_dir()), progress), gives_features=True
    )
    features = prefix.plain(images).all()
    probe = solve(features, images.labels, images.groups, solver="ridge", num_classes=len(index.classes), seed=0)
    paths = [record.path for record in records]
    return data.audit_features(index, report, paths=paths, features=features, probabilities=np.exp(probe.out_of_fold))
