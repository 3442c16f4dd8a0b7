"""What a report is made of: the values of the straight line, each of which may be missing."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from automl_tl.evaluation.abstention import ErrorGuarantee
from automl_tl.evaluation.learning_curve import LearningCurve
from automl_tl.values import (
    DataReport,
    DatasetIndex,
    Evaluation,
    Finding,
    Fraction,
    Plan,
    SplitAssignment,
    Value,
)

__all__ = ["FitHistory", "ReportFacts", "Suspect", "TestedImage"]


class TestedImage(Value):
    """One image of the test part and what the model said of it."""

    __test__ = False  # pytest takes the name for a test

    path: str = Field(description="as in the index; empty if only its digest is known")
    label: str
    predicted: str
    probability: Fraction = Field(description="of what was predicted")
    true_probability: Fraction = Field(description="of the label")


class Suspect(Value):
    """An image whose label is probably wrong: a model that didn't learn from it sees another class in it."""

    path: str
    label: str
    suggested: str
    probability: Fraction = Field(description="of the suggested class")


class FitHistory(Value):
    """How a model came about, as far as nothing else of its version tells it; kept with the version."""

    curves: tuple[dict[str, float | str], ...] = Field(default=(), description="one row per epoch")
    seconds: dict[str, float] = Field(default_factory=dict, description="step -> seconds")
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = Field(default=(), description="what features told of the images that it learned from")
    suspects: tuple[Suspect, ...] = Field(default=(), description="images whose label is probably wrong, most suspicious first")


class ReportFacts(Value):
    """All that the report may tell; what is absent is left out of it."""

    model: str = Field(description="name, or name@version")
    created_at: datetime
    index: DatasetIndex | None = None
    data: DataReport | None = None
    split: SplitAssignment | None = None
    plan: Plan | None = None
    fit: FitHistory | None = None
    evaluation: Evaluation | None = None
    tested: tuple[TestedImage, ...] = ()
    learning: LearningCurve | None = None
    abstentions: tuple[ErrorGuarantee, ...] = ()
    seconds: float | None = Field(default=None, description="that the fit took in all")
    latency_ms: float | None = Field(default=None, description="of one image, measured")
    size_mib: float | None = Field(default=None, description="of the model's files")
    provenance: dict[str, str] = Field(default_factory=dict, description="digests, versions, machine: anything worth a row")
