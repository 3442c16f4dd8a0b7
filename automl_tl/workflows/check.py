"""Check: everything that is wrong with a dataset, before anything is trained.

Training is imported where it is needed, because ``tl data check`` must not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from automl_tl import data
from automl_tl.plugin_host import discover
from automl_tl.runtime.formatting import html_table
from automl_tl.runtime.paths import cache_dir, usable_cache
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.resources import writing_to
from automl_tl.values import DataReport, DatasetIndex, ImageRecord, Value
from automl_tl.workflows.dataset import open_corrections

if TYPE_CHECKING:
    from automl_tl.training import LabeledImages

LABEL_BACKBONE: Final = "lite/efficientnet_lite0"  # comes with the installation; larger ones found no more (decision 19)


class DataCheck(Value):
    """The content of a source, and every problem in it."""

    index: DatasetIndex
    report: DataReport

    def _repr_html_(self) -> str:
        rows = [(finding.severity, finding.title, finding.advice) for finding in self.report.findings]
        counts = f"{self.index.num_files} files: {len(self.index.images)} images, {len(self.report.left_out)} of them left out"
        texts = (self.index.layout, f"{counts}; {len(self.index.rejected)} files rejected")
        return html_table(("", "finding", "advice"), rows, texts=texts)


def check(
    images: str | Path,
    *,
    labels: bool = False,
    fix: str | Path | None = None,
    corrections: str | Path | None = None,
    classes_are_folders: bool = False,
    group_by: str | None = None,
    progress: Progress = QUIET,
) -> DataCheck:
    """Scan and audit the images at ``images``.

    Args:
        images: any source that ``fit`` reads.
        labels: also look for label issues and outliers with a pretrained network, about 10 ms per image.
        fix: CSV file to write proposed fixes to; images are never modified.
        corrections: file of decisions about single images, as `tl review` writes it; applied by image digest.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.
        group_by: ``order``, ``folder``, a regular expression on the path, a column of the table, or ``none``; absent: by order
            where it predicts similarity.
        progress: receives progress and warnings.

    Raises:
        DataError: the source cannot be read; with ``labels``, too few classes or images for a linear probe.
        OSError: ``fix`` cannot be written.
    """
    decisions = open_corrections(images, corrections, progress)
    source = data.open_source(images, classes_are_folders=classes_are_folders, progress=progress)
    index, report = data.scan_and_audit(source, progress, corrections=decisions, allow_empty=True, group_by=group_by)
    report = data.group_blocks(index, report)
    if labels and index.images:
        report = measure_labels(source, index, report, progress).add_to(index, report)
    if fix is not None:
        with writing_to(Path(fix)):
            data.write_fixes(Path(fix), data.propose_fixes(index, report))
    return DataCheck(index=index, report=report)


@dataclass(frozen=True)
class LabelEvidence:
    """What a pretrained network with a linear probe says of N images in use: features ``(N, D)``, probabilities ``(N, C)``.

    The probabilities are out of fold: the probe did not learn from the image, nor from its near-duplicates.
    """

    paths: tuple[str, ...]
    features: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    predict: Callable[[Sequence[ImageRecord]], NDArray[np.float32]]
    """Returns the probabilities ``(M, C)`` of other images, which are not in use."""

    def add_to(self, index: DatasetIndex, report: DataReport) -> DataReport:
        """Add label issues and outliers to the ``report`` on ``index``."""
        return data.audit_features(index, report, paths=self.paths, features=self.features, probabilities=self.probabilities)


def measure_labels(source: data.Source, index: DatasetIndex, report: DataReport, progress: Progress) -> LabelEvidence:
    """Judge the labels of all images in use by a linear probe on the features of a pretrained network, which are cached.

    Args:
        source: holds the images.
        index: of the scan.
        report: of the audit.
        progress: receives progress.

    Raises:
        TooFewImagesError: too few classes or images for a linear probe.
    """
    import torch

    from automl_tl.models.bundle import build_encoder
    from automl_tl.training import label_images
    from automl_tl.training.closed_form import head_of, solve
    from automl_tl.training.views import Prefix
    from automl_tl.training.workspace import ActivationCache

    data.check_learnable(index, report)
    backbone = discover().backbone(LABEL_BACKBONE)
    encoder = build_encoder(backbone, pretrained=True, progress=progress)
    prefix = Prefix(
        encoder, backbone.card.preprocessing, ActivationCache(usable_cache(cache_dir()), progress), gives_features=True
    )

    def labeled(records: Sequence[ImageRecord]) -> LabeledImages:
        return label_images({"train": records}, index.classes, report, source.read)["train"]

    images = labeled(data.images_in_use(index, report))
    features = prefix.plain(images)
    # solve overwrites the features that it is given
    probe = solve(features.all(), images.labels, images.groups, solver="ridge", num_classes=len(index.classes), seed=0)

    @torch.no_grad()
    def predict(records: Sequence[ImageRecord]) -> NDArray[np.float32]:
        others = torch.from_numpy(prefix.plain(labeled(records)).all())
        probabilities: NDArray[np.float32] = head_of(probe)(others).exp().numpy()
        return probabilities

    return LabelEvidence(images.paths, features.all(), np.exp(probe.out_of_fold), predict)
