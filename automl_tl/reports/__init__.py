"""One self-contained HTML file that says what the data is like, what was done, and how good the model is."""

from automl_tl.reports.facts import FitHistory, LabelIssue, ReportFacts, TestedImage
from automl_tl.reports.page import Thumbnail, write_report

__all__ = ["FitHistory", "LabelIssue", "ReportFacts", "TestedImage", "Thumbnail", "write_report"]
