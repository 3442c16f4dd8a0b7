"""Datasets of images: sources, the scan, the audit, the split, decoding. No torch."""

from __future__ import annotations

from automl_tl.data.audit.groups import group_images
from automl_tl.data.audit.label_issues import audit_features
from automl_tl.data.audit.order import grouping_of
from automl_tl.data.audit.report import (
    Fix,
    audit_index,
    check_learnable,
    check_measurable,
    propose_fixes,
    read_fixes,
    scan_and_audit,
    write_fixes,
)
from automl_tl.data.corrections import (
    Correction,
    Corrections,
    append_correction,
    correct_labels,
    corrections_file,
    read_corrections,
)
from automl_tl.data.facts import Thumbnails
from automl_tl.data.image_formats import IMAGE_SUFFIXES
from automl_tl.data.index import scan
from automl_tl.data.remote import file_name_of, is_url
from automl_tl.data.sources.given import GivenImages
from automl_tl.data.sources.opening import open_source
from automl_tl.data.sources.source import Entry, Source
from automl_tl.data.split import (
    DRAWN_AGAIN,
    assign_splits,
    group_blocks,
    images_by_split,
    images_in_use,
    images_to_measure_on,
    make_split,
    read_split,
    save_split,
    saved_split,
)

__all__ = [
    "DRAWN_AGAIN",
    "IMAGE_SUFFIXES",
    "Correction",
    "Corrections",
    "Entry",
    "Fix",
    "GivenImages",
    "Source",
    "Thumbnails",
    "append_correction",
    "assign_splits",
    "audit_features",
    "audit_index",
    "check_learnable",
    "check_measurable",
    "correct_labels",
    "corrections_file",
    "file_name_of",
    "group_blocks",
    "group_images",
    "grouping_of",
    "images_by_split",
    "images_in_use",
    "images_to_measure_on",
    "is_url",
    "make_split",
    "open_source",
    "propose_fixes",
    "read_corrections",
    "read_fixes",
    "read_split",
    "save_split",
    "saved_split",
    "scan",
    "scan_and_audit",
    "write_fixes",
]
