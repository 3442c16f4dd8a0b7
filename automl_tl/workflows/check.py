"""What a network's eyes add to the data report before anything is trained: wrong labels and images like no other."""

from __future__ import annotations

from typing import Final

import numpy as np

from automl_tl import data
from automl_tl.plugin_host import discover
from automl_tl.runtime.paths import cache_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import DataReport, DatasetIndex

__all__ = ["look_for_suspects"]

BACKBONE: Final = "lite/efficientnet_lite0"  # comes with the installation, and the larger ones found no more: DECISIONS 19


def look_for_suspects(source: data.Source, index: DatasetIndex, report: DataReport, progress: Progress = QUIET) -> DataReport:
    """``report`` with suspected labels and outliers among all images in use, judged out of fold by a linear probe.

    Raises:
        DataError: there is nothing to learn from.
    """
    from automl_tl.models.bundle import build_encoder
    from automl_tl.training import label_images
    from automl_tl.training.activations import Cache
    from automl_tl.training.inputs import Prefix
    from automl_tl.training.solve import solve

    data.check_learnable(index, report)
    used = tuple(data.images_in_use(index, report).without_thumbnails())
    images = label_images({"train": used}, index.classes, report, source.read)["train"]
    backbone = discover().backbone(BACKBONE)
    encoder = build_encoder(backbone, pretrained=True, progress=progress)
    prefix = Prefix(encoder, backbone.card.preprocessing, Cache(cache_dir(), progress), gives_features=True)
    rows = prefix.plain(images)
    solved = solve(rows.all(), images.labels, images.groups, solver="ridge", num_classes=len(index.classes), seed=0)
    paths = [record.path for record in used]
    return data.audit_features(index, report, paths=paths, features=rows.all(), probabilities=np.exp(solved.out_of_fold))
