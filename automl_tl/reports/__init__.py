"""Self-contained HTML pages: the model report, explanations of predictions, and the benchmark."""

from automl_tl.reports.facts import Explanation, FitHistory, LabelIssue, Neighbor, ReportFacts, TestedImage
from automl_tl.reports.page import Thumbnail, render_bench, render_explanations, render_report

__all__ = [
    "Explanation",
    "FitHistory",
    "LabelIssue",
    "Neighbor",
    "ReportFacts",
    "TestedImage",
    "Thumbnail",
    "render_bench",
    "render_explanations",
    "render_report",
]
