"""One self-contained HTML file that says what the data is like, what was done, and how good the model is."""

from automl_tl.evaluation.report.facts import FitStory, ReportFacts, Suspect, TestedImage
from automl_tl.evaluation.report.writing import Thumbnail, write_report

__all__ = ["FitStory", "ReportFacts", "Suspect", "TestedImage", "Thumbnail", "write_report"]
