"""The values that flow through the program, in the order in which they flow.

    source -> DatasetIndex -> DataReport -> SplitAssignment -> DatasetProfile -> Plan -> FitResult -> Evaluation

The registry turns the last into a ModelVersion. Values are frozen, reject unknown fields, and are JSON on disk. They have no
behavior beyond simple views of their fields, and import neither torch nor numpy. Fractions are 0 to 1, names carry units, and
paths inside a source are POSIX.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from automl_tl.runtime.formatting import html_table, metric_name, metric_range, metric_text, number, percent, percent_range

__all__ = [
    "AppliedCorrections",
    "BackboneCard",
    "BenchCell",
    "CandidateVerdict",
    "ClassScore",
    "Constraints",
    "CorrectedImage",
    "DataReport",
    "DatasetIndex",
    "DatasetProfile",
    "Decision",
    "Estimate",
    "Evaluation",
    "Finding",
    "FitOutcome",
    "FitResult",
    "Fraction",
    "Head",
    "ImageRecord",
    "Interval",
    "LeftOut",
    "Metric",
    "Phase",
    "Plan",
    "Prediction",
    "Preprocessing",
    "PretrainedWeights",
    "Recipe",
    "Recommendation",
    "RejectedFile",
    "Severity",
    "SlotEstimate",
    "SplitAssignment",
    "SplitName",
    "Value",
]

Fraction = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[float, float]
SplitName = Literal["train", "validation", "test"]
Severity = Literal["info", "warning", "error"]
Decision = Literal["relabel", "keep", "exclude", "undo"]
Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "log_loss"]


class Value(BaseModel):
    """Base of all values: frozen; unknown fields, NaN and infinity are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


# ------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """An image that the scan decoded; not a ``Value``, which would take 500 bytes more."""

    __pydantic_config__: ClassVar = ConfigDict(
        extra="forbid", allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64"
    )

    path: Annotated[str, Field(description="relative to the source, POSIX, unique")]
    label: str
    split: Annotated[SplitName | None, Field(description="split given by the source, if any")] = None
    group: Annotated[str | None, Field(description="images of a group stay in one split")] = None
    digest: Annotated[str, Field(description="sha256 of the encoded bytes, hexadecimal")]
    num_bytes: int
    width_px: int
    height_px: int
    format: Annotated[str, Field(description="as Pillow names it: JPEG, PNG ...")]
    mode: Annotated[str, Field(description="as Pillow names it: RGB, L, CMYK, I;16 ...")]
    num_frames: int = 1
    captured_at: Annotated[datetime | None, Field(description="EXIF time")] = None
    camera: str | None = None
    brightness: Annotated[Fraction, Field(description="mean luma")] = 0.5
    contrast: Annotated[Fraction, Field(description="standard deviation of luma")] = 0.0
    color: Annotated[Fraction, Field(description="mean distance between the highest and the lowest channel; 0: gray")] = 0.0
    sharpness: Annotated[float, Field(description="variance of the Laplacian of a 256 px luma thumbnail")] = 0.0
    remarks: Annotated[tuple[str, ...], Field(description="steps of decoding: rotated by EXIF, alpha on white ...")] = ()


class RejectedFile(Value):
    """A file that cannot be used, and why."""

    path: str
    label: str | None = None
    reason: str = Field(description="stable code: truncated, empty, not_an_image, too_many_pixels, dangling_link ...")
    detail: str
    digest: str = Field(default="", description="sha256 of the bytes, hexadecimal; of the path if they cannot be read")


class DatasetIndex(Value):
    """Result of a scan: ``num_files == len(images) + len(rejected) + sum(ignored.values())``."""

    root: str
    source: str = Field(description="kind of source: class_folders, split_folders, manifest, archive ...")
    layout: str = Field(default="", description="what was recognized: split folders and their splits, tables, folders not used")
    classes: tuple[str, ...] = Field(description="sorted; the order of the model's outputs")
    images: tuple[ImageRecord, ...] = Field(description="sorted by path")
    rejected: tuple[RejectedFile, ...] = ()
    empty_classes: tuple[str, ...] = Field(default=(), description="classes without a usable image")
    ignored: dict[str, int] = Field(default_factory=dict, description="reason -> number of ignored files: hidden, litter ...")
    num_files: int


class Finding(Value):
    """One kind of problem in the data, with every image that has it."""

    code: str = Field(description="stable code: near_duplicates, conflicting_labels, imbalance ...")
    severity: Severity
    title: str
    why: str
    advice: str
    paths: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = Field(default=(), description="images that belong together, such as duplicates")
    facts: dict[str, float | int | str] = Field(default_factory=dict)


class LeftOut(Value):
    """A readable image that is not used for training or evaluation, and why."""

    path: str
    reason: str
    detail: str


class CorrectedImage(Value):
    """An image whose label was corrected, or that is excluded."""

    digest: str
    path: str
    before: str = Field(description="label that the source gives")
    after: str | None = Field(description="correct label; null: excluded")


class AppliedCorrections(Value):
    """What a corrections file did to a dataset."""

    file: str
    digest: str = Field(description="sha256 over the decisions in the file")
    images: tuple[CorrectedImage, ...] = ()
    excluded_files: tuple[str, ...] = Field(default=(), description="paths of excluded files that cannot be used anyway")
    kept: tuple[str, ...] = Field(default=(), description="paths of images whose label a person confirmed")
    unchanged: tuple[str, ...] = Field(default=(), description="paths of images that have the correct label by now")
    unmatched: tuple[str, ...] = Field(default=(), description="paths of decisions about images that are not in the dataset")
    new_classes: dict[str, str] = Field(default_factory=dict, description="class that only corrections name -> a hint, if any")

    @property
    def decided(self) -> frozenset[str]:
        """Paths of all images that a person has decided about."""
        return frozenset((*(image.path for image in self.images), *self.kept, *self.unchanged))

    @property
    def words(self) -> str:
        """Summary in one line."""
        num_excluded = sum(image.after is None for image in self.images)
        counts = (
            (len(self.images) - num_excluded, "label corrected", "labels corrected"),
            (num_excluded + len(self.excluded_files), "image excluded", "images excluded"),
        )
        texts = [f"{count} {one if count == 1 else several}" for count, one, several in counts]
        texts += [f"{len(self.kept)} confirmed"] if self.kept else []
        texts += [f"{len(self.unchanged)} already corrected"] if self.unchanged else []
        return ", ".join(texts)


class DataReport(Value):
    """Findings of the audit, and the images left out because of them."""

    findings: tuple[Finding, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    groups: tuple[tuple[str, ...], ...] = Field(default=(), description="paths that must stay in one split")
    fingerprint: str = Field(description="sha256 over the sorted (digest, label) of the images in use")
    corrections: AppliedCorrections | None = Field(default=None, description="what --corrections did; null: not given")

    @property
    def num_warnings(self) -> int:
        """Number of findings that are warnings or errors."""
        return sum(finding.severity != "info" for finding in self.findings)


class SplitAssignment(Value):
    """The split of each image, by the digest of its bytes, so that adding images does not move others."""

    seed: int
    test_given: bool = Field(description="the source gives the test split")
    splits: dict[str, SplitName] = Field(description="image digest -> split")
    notes: tuple[str, ...] = ()
    grouping: str | None = Field(default=None, description="order, folder, none, REGEX or COLUMN; null: no structure found")
    block_images: int | None = Field(default=None, description="images of a block, where grouping is order")


IMBALANCED: Final = 3.0  # largest by smallest class; above, balanced accuracy is read first: decision 49


class DatasetProfile(Value):
    """What the planner needs to know about a dataset."""

    num_images: int = Field(description="training and validation images")
    num_test_images: int
    num_classes: int
    images_per_class: dict[str, int]
    min_images_per_class: int
    imbalance: float = Field(ge=1, description="size of the largest class divided by that of the smallest")
    median_side_px: int = Field(description="median of the shorter side")
    max_side_px: int
    gray_fraction: Fraction
    num_groups: int
    num_duplicates: int
    label_noise: Fraction | None = Field(
        default=None, description="fraction of labels that an out-of-fold probe contradicts; null: not measured"
    )
    fingerprint: str
    grouping: str | None = Field(default=None, description="how images are grouped, beyond near-duplicates; null: not")


# --------------------------------------------------------------------------------------------- backbones and recipes


class Preprocessing(Value):
    """How an upright RGB image becomes the network's input.

    The shorter side is scaled to ``side_px / crop_fraction``, the center of ``side_px`` x ``side_px`` is taken, values in
    0 to 1 are normalized by ``mean`` and ``std``: float32 ``(3, side_px, side_px)``.
    """

    side_px: int = Field(gt=0, description="of the network's input, which is square")
    crop_fraction: float = Field(default=0.875, gt=0, le=1, description="side of the crop by the shorter side of the image")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field(default="bicubic", description="when scaling")
    mean: tuple[float, float, float] = Field(default=(0.485, 0.456, 0.406), description="red, green, blue; 0 to 1")
    std: tuple[float, float, float] = Field(default=(0.229, 0.224, 0.225), description="red, green, blue; 0 to 1")


MODEL_NAME: Final = r"[a-z0-9_]+/[A-Za-z0-9_.\-]+(:levels)?"


class Recommendation(Value):
    """Why a backbone is worth a download: published figures and their source."""

    situation: Literal["laptop", "gpu"] = Field(description="the slowest machine on which it is worth its time")
    pooling: str = Field(description="what the features are: class token, mean of the patches, pooled maps")
    evidence: str = Field(description="published figure that imagenet_top1 rounds, and how it was measured")
    source: str = Field(description="where it was published")


class BackboneCard(Value):
    """Facts about a backbone, readable without torch and without building it."""

    name: str = Field(pattern=rf"^{MODEL_NAME}(\+{MODEL_NAME})*$", description="provider/model; several joined by +")
    family: str = Field(description="architecture family, such as efficientnet")
    preprocessing: Preprocessing = Field(description="what the weights were trained with")
    feature_dim: int = Field(gt=0, description="width of the features")
    num_blocks: int | None = Field(default=None, gt=0, description="absent: known only after building")
    num_parameters: int | None = Field(default=None, description="of the whole network, its classifier included")
    num_macs: int | None = Field(default=None, description="multiply-accumulates for one image of side_px")
    pretrained_on: str | None = Field(default=None, description="such as imagenet-1k; absent: no pretrained weights")
    imagenet_top1: Fraction | None = Field(default=None, description="published accuracy on ImageNet-1k's validation images")
    license: str | None = Field(default=None, description="SPDX name of the weights' license, absent if not stated")
    weights: Literal["package", "cached", "download", "file", "none"] = Field(
        default="none", description="location: installed package, cache, download, file of the user"
    )
    weights_mib: float | None = Field(default=None, description="as a float32 file")
    fixed_side: bool = Field(default=False, description="the network accepts only images of side_px")
    same_network_as: tuple[str, ...] = Field(
        default=(), description="backbones of other plugins with the same tensors in the same order, which can replace this one"
    )
    hub: str = Field(default="", description="Hugging Face repository of the weights, with @REVISION if it is not main")
    hub_files: tuple[str, ...] = Field(default=(), description="names of the file in that repository, best first")
    recommended: Recommendation | None = Field(default=None, description="worth a download; what `--download` considers")

    @property
    def is_local(self) -> bool:
        """Whether the pretrained weights are on this machine."""
        return self.weights in ("package", "cached", "file")


class Head(Value):
    """The classifier on top of the encoder's features.

    With ``solver``, a closed-form head is fitted on the frozen features of all images, and phases start from it. Without,
    the head starts at zero or at random and is trained in the phases.
    """

    solver: Literal["logistic", "ridge", "lda", "average"] | None = Field(
        default=None, description="closed-form head; average: of all, lda with few images only. Absent: trained in the phases"
    )
    hidden_dims: tuple[int, ...] = Field(
        default=(), description="widths of the hidden layers of an MLP with ReLU; empty: linear"
    )
    start: Literal["zero", "random", "solved"] = Field(
        default="zero", description="initial weights; solved: the closed-form head, scaled to its out-of-fold loss"
    )


class Phase(Value):
    """A stretch of training with a fixed set of trained blocks, learning rates and augmentation."""

    name: str = Field(description="shown in learning curves and notes")
    epochs: int = Field(ge=1, description="passes over the training images")
    train_blocks: tuple[int, ...] = Field(default=(), description="indices of the trained blocks; 0 is at the input")
    parameters: Literal["all", "norm"] = Field(default="all", description="norm: only the affine parameters of norm layers")
    head_lr: float = Field(default=1e-3, gt=0, description="peak learning rate of the head")
    encoder_lr: float = Field(default=1e-3, gt=0, description="peak learning rate of the block nearest the head")
    block_decay: float = Field(default=1.0, gt=0, le=1, description="factor on the learning rate per block towards the input")
    block_factors: tuple[float, ...] | None = Field(
        default=None, description="factor on encoder_lr for each block of train_blocks; absent: by block_decay"
    )
    schedule: Literal["cosine", "one_cycle"] = Field(
        default="cosine", description="of all learning rates, over the steps of the phase"
    )
    warmup_fraction: Fraction = Field(
        default=0.1, description="share of the steps in which learning rates rise; one_cycle has its own"
    )
    augmentation: Literal["none", "light", "medium"] = Field(
        default="light", description="light: crops and safe flips; medium: smaller crops and color jitter as well"
    )
    cached_views: int = Field(
        default=0, ge=0, description="number of cached views per image; 0: fresh views, the frozen blocks run in every epoch"
    )
    batch_norm: Literal["frozen", "training"] = Field(default="frozen", description="running statistics in trained blocks")

    @model_validator(mode="after")
    def _one_factor_per_block(self) -> Self:
        if self.block_factors is not None and len(self.block_factors) != len(self.train_blocks):
            raise ValueError(f"{len(self.block_factors)} block_factors for {len(self.train_blocks)} train_blocks")
        return self


class Recipe(Value):
    """How to train a model: the head, the phases and the optimization."""

    head: Head = Field(default=Head(), description="the classifier on the features")
    phases: tuple[Phase, ...] = Field(default=(), description="in order; empty: a closed-form head only")
    pretrained: bool = Field(default=True, description="false: the encoder starts from random weights")
    weight_decay: float = Field(default=0.01, ge=0, description="of AdamW; not applied to biases and norm layers")
    batch_size: int = Field(
        default=32, ge=1, description="images per optimizer step; gradients are accumulated if memory is short"
    )
    label_smoothing: Fraction = Field(default=0.05, description="share of the target probability spread over all classes")
    gradient_clip: float | None = Field(default=1.0, gt=0, description="maximum gradient norm; absent: no clipping")
    refit: bool = Field(
        default=True, description="after choosing the epoch, train on training and validation images, if time allows"
    )
    patience_epochs: int | None = Field(
        default=None, ge=1, description="stop after this number of epochs without a lower validation log-loss"
    )

    @model_validator(mode="after")
    def _unique_phase_names(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phase names must be unique, found {names}")
        return self


# ---------------------------------------------------------------------------------------------------------- planning


class Constraints(Value):
    """Limits and preferences of the user; the planner decides the rest."""

    backbones: tuple[str, ...] = Field(default=(), description="choose among these; empty: all")
    strategies: tuple[str, ...] = Field(default=(), description="choose among these; empty: all")
    options: dict[str, str | float | int | bool] = Field(
        default_factory=dict, description="of the strategy, if one is requested"
    )
    weights: str | None = Field(default=None, description="file for the backbone, if one is requested; none: random weights")
    hidden_dims: tuple[int, ...] | None = Field(
        default=None, description="of the head; empty: linear; null: chosen by the strategy"
    )
    budget_s: float | None = Field(default=None, gt=0, description="wall-clock limit of the whole command")
    max_latency_ms: float | None = Field(default=None, gt=0, description="of one image on this machine")
    max_size_mib: float | None = Field(default=None, gt=0)
    license: Literal["permissive"] | None = None
    optimize: Literal["accuracy", "balanced", "latency", "size"] = "balanced"
    metric: Metric | None = Field(
        default=None, description="models are chosen by it, and it is read first; null: chosen by accuracy"
    )
    class_weights: Literal["balanced", "sqrt", "none"] | dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        default=None, description="how much an image of each class counts; classes not named: 1; null: follows from the metric"
    )
    seed: int = Field(default=0, ge=0, description="of the split, the folds and the training")
    download: bool = Field(default=False, description="recommended backbones may be downloaded, within the budget")
    group_by: str | None = Field(
        default=None,
        description="images that stay in one split: order, folder, none, REGEX, COLUMN; null: order, where it matters",
    )
    processes: int | None = Field(
        default=None, ge=1, description="that train together; null: one per GPU where it saves time, else one"
    )


class Estimate(Value):
    """Expected or measured accuracy and cost."""

    accuracy: Fraction | None = None
    accuracy_interval: Interval | None = None
    accuracy_source: str = Field(default="", description="evidence: prior, cross-validated probe, fine-tuning trial ...")
    seconds: float | None = None
    latency_ms: float | None = None
    size_mib: float | None = None
    memory_mib: float | None = None
    metric: Metric = Field(default="accuracy", description="that models are chosen by")
    value: float | None = Field(default=None, description="of the metric; null if it is accuracy")
    value_interval: Interval | None = Field(default=None, description="95%, of the metric; null if it is accuracy")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return (metric_name(self.metric), "95% CI", "seconds to fit", "ms/image", "MiB", "memory, MiB")

    @property
    def cells(self) -> tuple[str, ...]:
        """Texts of the columns."""
        costs = (number(self.seconds, 1), number(self.latency_ms, 1), number(self.size_mib, 1), number(self.memory_mib, 0))
        return (*self.metric_cells, *costs)

    @property
    def metric_cells(self) -> tuple[str, str]:
        """Texts of the metric and its interval."""
        if self.metric == "accuracy":
            return percent(self.accuracy), percent_range(self.accuracy_interval)
        return metric_text(self.metric, self.value), metric_range(self.metric, self.value_interval)


class SlotEstimate(Value):
    """Expected time and price of a fit on an executor."""

    on: str
    num_slots: int = Field(ge=1, description="CPU cores, or GPUs, that work at once")
    num_images: int = Field(ge=0, description="whose features have to be extracted")
    seconds: float = Field(description="wall time of the fit")
    slot_hours: float = Field(description="slots times wall time: they are held until the command ends")


class CandidateVerdict(Value):
    """A pair of backbone and strategy, its estimate, and the verdict on it."""

    backbone: str
    strategy: str
    estimate: Estimate
    verdict: Literal["chosen", "tied", "rejected", "not_tried"]
    reason: str

    COLUMNS: ClassVar = ("backbone", "strategy", "expected", "95% CI", "minutes", "ms/image", "MiB", "verdict", "reason")

    @property
    def cells(self) -> tuple[str, ...]:
        """Texts of the columns."""
        estimate = self.estimate
        minutes = number(estimate.seconds and estimate.seconds / 60, 1)
        costs = (minutes, number(estimate.latency_ms, 0), number(estimate.size_mib, 1))
        return (self.backbone, self.strategy, *estimate.metric_cells, *costs, self.verdict.replace("_", " "), self.reason)


class PretrainedWeights(Value):
    """Origin of the weights that a model starts from."""

    backbone: str
    license: str | None = Field(description="SPDX name, null if not stated")
    repository: str | None = Field(default=None, description="on the Hugging Face Hub; null: another source")
    commit: str | None = None
    file: str | None = None
    num_bytes: int | None = None
    sha256: str | None = None


class Plan(Value):
    """What will be trained, and why; ``tl auto fit --plan`` repeats it exactly."""

    format: Literal[1] = 1
    backbone: str
    strategy: str
    strategy_options: dict[str, object] = Field(default_factory=dict)
    recipe: Recipe
    preprocessing: Preprocessing
    constraints: Constraints = Constraints()
    profile: DatasetProfile
    similarity: float | None = Field(default=None, description="of the data to the backbone's pretraining, 0 to 1")
    expected: Estimate = Estimate()
    elsewhere: SlotEstimate | None = Field(default=None, description="with `--on`: expected on that executor")
    reasons: tuple[str, ...]
    candidates: tuple[CandidateVerdict, ...] = ()
    changes: tuple[str, ...] = Field(default=(), description="what would change the decision")
    averaged: bool = Field(
        default=False,
        description="`backbone` is an ensemble whose first member is trained; its probabilities are averaged with those of a "
        "closed-form head on the others",
    )
    processes: int = Field(default=1, ge=1, description="that train together on this machine")
    weights: tuple[PretrainedWeights, ...] = Field(default=(), description="of the chosen backbone, or of each in an ensemble")
    seconds: float = Field(default=0.0, description="spent on planning, downloads included")
    trained_s: float = Field(
        default=0.0, description="part of it spent on training the chosen candidate, which the fit continues"
    )

    def _repr_html_(self) -> str:
        texts = (f"{self.strategy} on {self.backbone}", *self.reasons)
        return html_table(CandidateVerdict.COLUMNS, (candidate.cells for candidate in self.candidates), texts=texts)


# ---------------------------------------------------------------------------------------------- training and evaluation


class FitResult(Value):
    """A trained model in files, and its training history."""

    encoder_file: Path
    head_file: Path
    model_digest: str = Field(description="sha256 over the tensors of encoder and head; independent of time and place")
    classes: tuple[str, ...]
    validation_accuracy: Fraction | None = None
    validation_interval: Interval | None = None
    curves: tuple[dict[str, float | str], ...] = Field(default=(), description="one row per epoch")
    seconds: dict[str, float] = Field(default_factory=dict, description="step -> seconds")
    notes: tuple[str, ...] = ()


class ClassScore(Value):
    """Metrics of one class; null without images or predictions."""

    precision: Fraction | None
    recall: Fraction | None
    recall_interval: Interval | None
    f1: Fraction | None
    num_images: int


class Evaluation(Value):
    """Metrics on images that were not used for any decision."""

    accuracy: Fraction
    interval: Interval = Field(description="95%, Wilson")
    num_images: int
    balanced_accuracy: Fraction
    balanced_accuracy_interval: Interval | None = Field(default=None, description="95%, see class_mean_intervals")
    macro_f1: Fraction
    macro_f1_interval: Interval | None = Field(default=None, description="95%, see class_mean_intervals")
    log_loss: float
    log_loss_interval: Interval | None = Field(default=None, description="95%, of the mean over the images")
    calibration_error: Fraction = Field(description="expected calibration error, 15 bins of equal width")
    top5_accuracy: Fraction | None = Field(default=None, description="from 10 classes on")
    top5_interval: Interval | None = Field(default=None, description="95%, Wilson")
    per_class: dict[str, ClassScore]
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] = Field(description="row: true class, column: predicted")
    words: str = Field(description="summary of the metrics in a sentence")
    headline: Metric = Field(
        default="accuracy",
        description="metric to read first: as requested; else balanced accuracy if training or these images are imbalanced",
    )
    metric: Metric | None = Field(default=None, description="metric that the model was chosen by on request")
    warnings: tuple[str, ...] = Field(
        default=(), description="one per class that is never found, or significantly less often than by guessing"
    )

    CLASS_COLUMNS: ClassVar = ("class", "images", "precision", "recall", "95% CI")

    def measured(self, metric: Metric) -> tuple[float, Interval | None]:
        """Return a metric and its 95% interval."""
        return {
            "accuracy": (self.accuracy, self.interval),
            "balanced_accuracy": (self.balanced_accuracy, self.balanced_accuracy_interval),
            "macro_f1": (self.macro_f1, self.macro_f1_interval),
            "log_loss": (self.log_loss, self.log_loss_interval),
        }[metric]

    @property
    def class_cells(self) -> list[tuple[str, ...]]:
        """Texts of the columns, a row per class."""
        return [
            (name, str(score.num_images), percent(score.precision), percent(score.recall), percent_range(score.recall_interval))
            for name, score in self.per_class.items()
        ]

    @property
    def figures(self) -> str:
        """The metrics in one line."""
        figures = [
            f"balanced accuracy {percent(self.balanced_accuracy)} ({percent_range(self.balanced_accuracy_interval)})",
            f"macro F1 {percent(self.macro_f1)} ({percent_range(self.macro_f1_interval)})",
            f"log loss {self.log_loss:.3f}",
            f"calibration error {percent(self.calibration_error)}",
        ]
        if self.top5_accuracy is not None:
            figures.append(f"top-5 accuracy {percent(self.top5_accuracy)} ({percent_range(self.top5_interval)})")
        return " \N{MIDDLE DOT} ".join(figures)

    def _repr_html_(self) -> str:
        return html_table(self.CLASS_COLUMNS, self.class_cells, texts=(self.words, *self.warnings, self.figures))


class FitOutcome(Value):
    """The outcome of ``tl auto fit``."""

    model: str = Field(description="name@version")
    model_digest: str
    report: Path | None = Field(default=None, description="HTML page; null: no time or disk space was left")
    plan: Plan
    test: Evaluation
    measured: Estimate = Field(description="counterpart of plan.expected; seconds of training, trials included, and publishing")
    validation_accuracy: Fraction | None
    validation_interval: Interval | None
    num_images: dict[str, int] = Field(description="per split, and left_out, rejected, ignored")
    findings: tuple[Finding, ...] = ()
    seconds: float
    seconds_by_step: dict[str, float]
    notes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        rows = [("predicted", *self.plan.expected.cells), ("measured", *self.measured.cells)]
        places = (f"registered as {self.model}", *([f"report: {self.report}"] if self.report else []))
        return self.test._repr_html_() + html_table(("", *self.measured.columns), rows, texts=(*self.notes, *places))


class BenchCell(Value):
    """One fit of ``tl bench``: a backbone with a strategy and a seed; ``error`` says why it failed."""

    images: str = Field(description="name of the folder")
    backbone: str
    strategy: str
    seed: int
    error: str | None = None
    accuracy: Fraction | None = Field(default=None, description="on the test split")
    interval: Interval | None = Field(default=None, description="95% confidence interval")
    balanced_accuracy: Fraction | None = Field(default=None, description="on the test split")
    metric: Metric = Field(default="accuracy", description="that models were chosen by")
    value: float | None = Field(default=None, description="of the metric, on the test split")
    value_interval: Interval | None = Field(default=None, description="95% confidence interval")
    num_test: int = 0
    expected: Fraction | None = Field(default=None, description="accuracy predicted by the plan")
    expected_interval: Interval | None = None
    seconds: float | None = Field(default=None, description="of the whole fit, from an empty cache")
    latency_ms: float | None = Field(default=None, description="latency of one image")
    memory_mib: float | None = Field(default=None, description="peak memory of the process")
    size_mib: float | None = Field(default=None, description="size of the version in the registry")


class Prediction(Value):
    """The prediction for one image, or the reason why there is none."""

    path: str
    label: str | None = None
    probability: Fraction | None = None
    top: dict[str, float] = Field(default_factory=dict, description="the most probable classes, best first")
    abstained: str | None = Field(default=None, description="reason for withholding the prediction")
    error: str | None = None
