"""Labeled images from a folder of colored images, through the real scan."""

from __future__ import annotations

from pathlib import Path

from automl_tl import data
from automl_tl.training.images import LabeledImages, label_images


def labeled_colors(folder: Path) -> LabeledImages:
    """All images of ``folder`` as one split."""
    source = data.open_source(folder)
    index = data.scan(source)
    return label_images({"train": index.images}, index.classes, data.audit_index(index), source.read)["train"]
