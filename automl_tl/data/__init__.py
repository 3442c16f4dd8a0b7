"""Images as people have them: sources, the scan, the audit, the split, decoding. No torch in here."""

from __future__ import annotations

from automl_tl.data.auditing import audit, audit_features, check_learnable, check_measurable
from automl_tl.data.fixes import propose_fixes, write_fixes
from automl_tl.data.image_formats import IMAGE_SUFFIXES
from automl_tl.data.saved_splits import divide, keep_split, read_split, write_split
from automl_tl.data.scanning import scan
from automl_tl.data.sources.opening import open_source
from automl_tl.data.sources.source import Entry, Source
from automl_tl.data.splitting import count_by_split, images_by_split, images_in_use, images_to_measure_on, make_split

__all__ = [
    "IMAGE_SUFFIXES",
    "Entry",
    "Source",
    "audit",
    "audit_features",
    "check_learnable",
    "check_measurable",
    "count_by_split",
    "divide",
    "images_by_split",
    "images_in_use",
    "images_to_measure_on",
    "keep_split",
    "make_split",
    "open_source",
    "propose_fixes",
    "read_split",
    "scan",
    "write_fixes",
    "write_split",
]
