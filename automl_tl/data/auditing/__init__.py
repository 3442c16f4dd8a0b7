"""All that is wrong with the images, why it matters, what to do. Looks at the index alone, never at a file."""

from __future__ import annotations

from automl_tl.data.auditing.label_findings import audit_features
from automl_tl.data.auditing.report import audit, check_learnable, check_measurable, leave_out

__all__ = ["audit", "audit_features", "check_learnable", "check_measurable", "leave_out"]
