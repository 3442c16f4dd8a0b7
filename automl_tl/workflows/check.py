"""Check: everything that is wrong with a dataset, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from automl_tl import data
from automl_tl.plugin_host import discover
from automl_tl.runtime.paths import cache_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import DataReport, DatasetIndex, Value

__all__ = ["DataCheck", "check", "find_label_issues"]

BACKBONE: Final = "lite/efficientnet_lite0"  # comes with the installation; larger ones found no more: decision 19


class DataCheck(Value):
    """What a source holds, and every problem found in it."""

    index: DatasetIndex
    report: DataReport


def check(images: Path, *, labels: bool = False, progress: Progress = QUIET) -> DataCheck:
    """Scan and audit the images at ``images``.

    Args:
        images: any source that ``fit`` reads.
        labels: also look for label issues and outliers with a pretrained network, about 10 ms per image.
        progress: receives progress and warnings.

    Raises:
        DataError: the source cannot be read.
    """
    source = data.open_source(images)
    index = data.scan(source, cache_dir=cache_dir(), progress=progress, none_is_fine=True)
    report = data.audit(index)
    if labels and index.images:
        report = find_label_issues(source, index, report, progress)
    return DataCheck(index=index, report=report)


def find_label_issues(source: data.Source, index: DatasetIndex, report: DataReport, progress: Progress = QUIET) -> DataReport:
    """Return ``report`` with likely label errors and outliers, judged out of fold by a linear probe.

    Args:
        source: where the images are.
        index: the scan of ``source``.
        report: the audit so far.
        progress: receives progress and warnings.

    Raises:
        DataError: too few classes or images to train a probe.
    """
    import numpy as np

    from automl_tl.models.bundle import build_encoder
    from automl_tl.training import label_images
    from automl_tl.training.activation_cache import ActivationCache
    from automl_tl.training.closed_form import solve
    from automl_tl.training.views import Prefix

    data.check_learnable(index, report)
    used = data.images_in_use(index, report)
    images = label_images({"train": used}, index.classes, report, source.read)["train"]
    backbone = discover().backbone(BACKBONE)
    encoder = build_encoder(backbone, pretrained=True, progress=progress)
    prefix = Prefix(encoder, backbone.card.preprocessing, ActivationCache(cache_dir(), progress), gives_features=True)
    features = prefix.plain(images).all()
    probe = solve(features, images.labels, images.groups, solver="ridge", num_classes=len(index.classes), seed=0)
    paths = [record.path for record in used]
    return data.audit_features(index, report, paths=paths, features=features, probabilities=np.exp(probe.out_of_fold))
