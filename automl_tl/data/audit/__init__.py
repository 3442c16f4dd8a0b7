"""The audit: everything that is wrong with the images, why it matters, what to do. Reads the index alone, never a file."""

from __future__ import annotations

from automl_tl.data.audit.label_issues import audit_features
from automl_tl.data.audit.report import (
    audit_index,
    check_learnable,
    check_measurable,
    leave_out,
    propose_fixes,
    write_fixes,
)

__all__ = [
    "audit_features",
    "audit_index",
    "check_learnable",
    "check_measurable",
    "leave_out",
    "propose_fixes",
    "write_fixes",
]
