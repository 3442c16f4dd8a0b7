"""What the HTML pages show, as values: the facts of a model report, and explanations of predictions."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import Field

from automl_tl.evaluation.abstention import ErrorGuarantee
from automl_tl.evaluation.learning_curve import LearningCurve
from automl_tl.runtime.formatting import html_table
from automl_tl.values import DataReport, DatasetIndex, Evaluation, Finding, Fraction, Plan, SplitAssignment, Value


class TestedImage(Value):
    """One test image and its prediction."""

    __test__ = False  # keep pytest from collecting it

    path: str = Field(description="path as in the index; empty if only the digest is known")
    label: str
    predicted: str
    probability: Fraction = Field(description="probability of the predicted class")
    true_probability: Fraction = Field(description="probability of the label")


class LabelIssue(Value):
    """An image whose label is probably wrong: a model that was not trained on it predicts another class."""

    path: str
    label: str
    suggested: str
    probability: Fraction = Field(description="probability of the suggested class")


class FitHistory(Value):
    """How a model was trained; stored with the version."""

    curves: tuple[dict[str, float | str], ...] = Field(default=(), description="one row per epoch")
    seconds: dict[str, float] = Field(default_factory=dict, description="step -> seconds")
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = Field(default=(), description="findings that need features, such as label issues")
    label_issues: tuple[LabelIssue, ...] = Field(
        default=(), description="images whose label is probably wrong, most likely first"
    )


class ReportFacts(Value):
    """Everything that the report shows."""

    model: str = Field(description="name, or name@version")
    created_at: datetime
    index: DatasetIndex | None = Field(description="this and the next two: only if the images are available")
    data: DataReport | None
    split: SplitAssignment | None
    plan: Plan
    fit: FitHistory
    evaluation: Evaluation
    tested: tuple[TestedImage, ...]
    learning: LearningCurve | None = Field(description="null with too few images")
    abstentions: tuple[ErrorGuarantee, ...]
    seconds: float = Field(description="seconds of training, trials included")
    latency_ms: float = Field(description="measured latency of one image")
    size_mib: float = Field(description="size of the model files")
    provenance: dict[str, str] = Field(description="digests, versions, machine")

    def _repr_html_(self) -> str:
        return html_table((self.model, ""), self.provenance.items()) + self.evaluation._repr_html_()


class Neighbor(Value):
    """A training image that is near an explained one in feature space."""

    path: str
    label: str
    distance: float = Field(description="cosine distance, 0 (the same) to 2")


class Explanation(Value):
    """The explanation of one prediction."""

    path: str
    label: str = Field(description="predicted class")
    top: dict[str, float] = Field(description="the most probable classes, best first")
    ood_score: float = Field(description="above 1: out of distribution")
    neighbors: tuple[Neighbor, ...] = Field(description="the nearest training images")
    method: str = Field(description="how the heatmap was computed: Grad-CAM or occlusion")
    heatmap: Path = Field(description="JPEG of the image next to itself covered by the heatmap")
