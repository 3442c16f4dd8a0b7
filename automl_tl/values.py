"""The values that flow through the program, in the order in which they flow.

    source -> DatasetIndex -> DataReport -> SplitAssignment -> DatasetProfile -> Plan -> FitResult -> Evaluation

The registry turns the last into a ModelVersion. Each is frozen, refuses unknown fields, prints itself and is JSON on
disk. No behavior beyond simple views of the own fields, no torch, no numpy. Fractions are 0 to 1, sizes carry their unit
in the name, paths inside a source are POSIX.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

__all__ = [
    "BackboneCard",
    "BenchCell",
    "CandidateVerdict",
    "ClassScore",
    "Constraints",
    "DataReport",
    "DatasetIndex",
    "DatasetProfile",
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
    "Phase",
    "Plan",
    "Prediction",
    "Preprocessing",
    "Recipe",
    "RejectedFile",
    "Severity",
    "SplitAssignment",
    "SplitName",
    "Value",
]

Fraction = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[float, float]
SplitName = Literal["train", "validation", "test"]
Severity = Literal["info", "warning", "error"]


class Value(BaseModel):
    """Base of all values: frozen, strict about its fields; a number that is none (NaN, infinity) is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


# ------------------------------------------------------------------------------------------------------------- data


class ImageRecord(Value):
    """One image that was opened and decoded by the scan."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    path: str = Field(description="where it is, relative to the source, POSIX, unique in the source")
    label: str
    split: SplitName | None = Field(default=None, description="the split that the source itself gives, if any")
    group: str | None = Field(default=None, description="images of one group never straddle a split")
    digest: str = Field(description="sha256 of the encoded bytes, hexadecimal")
    num_bytes: int
    width_px: int
    height_px: int
    format: str = Field(description="as Pillow names it: JPEG, PNG ...")
    mode: str = Field(description="as Pillow names it: RGB, L, CMYK, I;16 ...")
    num_frames: int = 1
    captured_at: datetime | None = Field(default=None, description="EXIF time")
    camera: str | None = None
    thumbnail: bytes = Field(default=b"", repr=False, description="32 x 32 luma, upright, row by row; base64 in JSON")
    brightness: Fraction = Field(default=0.5, description="mean luma")
    contrast: Fraction = Field(default=0.0, description="standard deviation of luma")
    color: Fraction = Field(default=0.0, description="mean distance between the highest and the lowest channel; 0: gray")
    sharpness: float = Field(default=0.0, description="variance of the Laplacian of a 256 px luma thumbnail")
    remarks: tuple[str, ...] = Field(default=(), description="what decoding had to do: rotated by EXIF, alpha on white ...")


class RejectedFile(Value):
    """One file that can't be used, and why."""

    path: str
    label: str | None = None
    reason: str = Field(description="a stable word: truncated, empty, not_an_image, too_many_pixels, dangling_link ...")
    detail: str


class DatasetIndex(Value):
    """All that the scan saw: ``num_files == len(images) + len(rejected) + sum(ignored.values())``."""

    root: str
    source: str = Field(description="kind of source: class_folders, split_folders, manifest, archive ...")
    classes: tuple[str, ...] = Field(description="sorted; the order of the model's outputs")
    images: tuple[ImageRecord, ...] = Field(description="sorted by path")
    rejected: tuple[RejectedFile, ...] = ()
    empty_classes: tuple[str, ...] = Field(default=(), description="classes that the source names, without a usable image")
    ignored: dict[str, int] = Field(default_factory=dict, description="why -> number of files left aside: hidden, litter ...")
    num_files: int


class Finding(Value):
    """One kind of problem in the data, with every image that has it."""

    code: str = Field(description="a stable word: near_duplicates, conflicting_labels, imbalance ...")
    severity: Severity
    title: str
    why: str
    advice: str
    paths: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = Field(default=(), description="where images belong together, such as duplicates")
    facts: dict[str, float | int | str] = Field(default_factory=dict)


class LeftOut(Value):
    """An image that was read but takes no part in training or measuring, and why."""

    path: str
    reason: str
    detail: str


class DataReport(Value):
    """What the audit found, and what it leaves out because of that."""

    findings: tuple[Finding, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    groups: tuple[tuple[str, ...], ...] = Field(default=(), description="paths that must stay on one side of a split")
    fingerprint: str = Field(description="sha256 over sorted (digest, label) of the images used")

    @property
    def num_warnings(self) -> int:
        """Number of findings that are more than information."""
        return sum(finding.severity != "info" for finding in self.findings)


class SplitAssignment(Value):
    """The split of each image, by the digest of its bytes, so that new images never move old ones."""

    seed: int
    test_given: bool = Field(description="the source itself names the test part")
    splits: dict[str, SplitName] = Field(description="image digest -> split")
    notes: tuple[str, ...] = ()


class DatasetProfile(Value):
    """What the data is like, as far as planning needs it."""

    num_images: int = Field(description="images that may be learned from: train and validation")
    num_test_images: int
    num_classes: int
    images_per_class: dict[str, int]
    min_images_per_class: int
    imbalance: float = Field(ge=1, description="largest class by smallest class")
    median_side_px: int = Field(description="median of the shorter side")
    max_side_px: int
    gray_fraction: Fraction
    num_groups: int
    num_duplicates: int
    label_noise: Fraction | None = Field(
        default=None, description="share of labels that look wrong to a probe that did not learn from them; absent: not looked"
    )
    fingerprint: str


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


MODEL_NAME: Final = r"[a-z0-9_]+/[A-Za-z0-9_.\-]+"


class BackboneCard(Value):
    """Facts about a backbone that cost nothing to read: no torch, no network."""

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
        default="none", description="where they are: installed by pip, in a cache, to be fetched, a file of the user's"
    )
    weights_mib: float | None = Field(default=None, description="as a float32 file")
    fixed_side: bool = Field(default=False, description="the network takes images of side_px only")
    same_network_as: tuple[str, ...] = Field(
        default=(), description="backbones of others with the same tensors in the same order: they can stand in for this one"
    )


class Head(Value):
    """The classifier on top of the encoder's features.

    With ``solver`` a closed-form head is fitted on the frozen features of all images; phases, if there are any, start from
    it. Without ``solver`` the head starts at zero or at random and is trained in the phases.
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
    phases: tuple[Phase, ...] = Field(default=(), description="carried out in order; empty: a closed-form head only")
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
    def _names_of_their_own(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phase names must be unique, found {names}")
        return self


# ---------------------------------------------------------------------------------------------------------- planning


class Constraints(Value):
    """What the user asks of the plan; what is absent, the planner decides."""

    backbones: tuple[str, ...] = Field(default=(), description="choose among these; empty: all")
    strategies: tuple[str, ...] = Field(default=(), description="choose among these; empty: all")
    options: dict[str, str | float | int | bool] = Field(default_factory=dict, description="of the one strategy asked for")
    weights: str | None = Field(default=None, description="a file for the one backbone asked for, or none: random weights")
    hidden_dims: tuple[int, ...] | None = Field(default=None, description="of the head; empty: linear, absent: the strategy's")
    budget_s: float | None = Field(default=None, gt=0, description="for the whole command")
    max_latency_ms: float | None = Field(default=None, gt=0, description="one image, this machine")
    max_size_mib: float | None = Field(default=None, gt=0)
    license: Literal["permissive"] | None = None
    optimize: Literal["accuracy", "balanced", "latency", "size"] = "balanced"
    seed: int = Field(default=0, ge=0, description="of the split, the folds and the training")


class Estimate(Value):
    """What a candidate is expected to give and to cost."""

    accuracy: Fraction | None = None
    accuracy_interval: Interval | None = None
    accuracy_source: str = Field(default="", description="how it is known: prior, cross-validated probe, fine-tuning trial ...")
    seconds: float | None = None
    latency_ms: float | None = None
    size_mib: float | None = None
    memory_mib: float | None = None


class CandidateVerdict(Value):
    """One pair of backbone and strategy, what is expected of it, and what became of it."""

    backbone: str
    strategy: str
    estimate: Estimate
    verdict: Literal["chosen", "tied", "rejected", "not_tried"]
    reason: str


class Plan(Value):
    """What will be done and why; carried out again exactly with ``tl auto fit --plan``."""

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
    reasons: tuple[str, ...]
    candidates: tuple[CandidateVerdict, ...] = ()
    changes: tuple[str, ...] = Field(default=(), description="what would change the decision")
    seconds: float = Field(default=0.0, description="spent on planning")
    trained_s: float = Field(default=0.0, description="of these, on training the choice: the fit goes on from there")


# ---------------------------------------------------------------------------------------------- training and measuring


class FitResult(Value):
    """A trained model in files, and how it came about."""

    encoder_file: Path
    head_file: Path
    model_digest: str = Field(description="sha256 over the tensors of encoder and head; no time, no place")
    classes: tuple[str, ...]
    backbone: str
    strategy: str
    recipe: Recipe
    preprocessing: Preprocessing
    temperature: float = Field(gt=0, description="of the softmax, fitted out of fold or on validation")
    validation_accuracy: Fraction | None = None
    validation_interval: Interval | None = None
    curves: tuple[dict[str, float | str], ...] = Field(default=(), description="one row per epoch")
    seconds: dict[str, float] = Field(default_factory=dict, description="step -> seconds")
    notes: tuple[str, ...] = ()


class ClassScore(Value):
    """How well one class is recognized; ``None`` where it can't be said (no image, nothing predicted)."""

    precision: Fraction | None
    recall: Fraction | None
    recall_interval: Interval | None
    f1: Fraction | None
    num_images: int


class Evaluation(Value):
    """An honest measurement on images that took no part in any choice."""

    accuracy: Fraction
    interval: Interval = Field(description="95%, Wilson")
    num_images: int
    balanced_accuracy: Fraction
    balanced_accuracy_interval: Interval | None = Field(default=None, description="95%, see class_mean_intervals")
    macro_f1: Fraction
    macro_f1_interval: Interval | None = Field(default=None, description="as that of the balanced accuracy")
    log_loss: float
    calibration_error: Fraction = Field(description="expected calibration error, 15 bins of equal width")
    top5_accuracy: Fraction | None = Field(default=None, description="only from 10 classes on")
    top5_interval: Interval | None = Field(default=None, description="95%, Wilson")
    per_class: dict[str, ClassScore]
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] = Field(description="row: true class, column: predicted")
    words: str = Field(description="what the figures mean, in plain words")


class FitOutcome(Value):
    """What ``tl auto fit`` did, as one object."""

    model: str = Field(description="name@version")
    model_digest: str
    report: Path | None = Field(default=None, description="the page about it; absent: no time or no room was left")
    plan: Plan
    test: Evaluation
    measured: Estimate = Field(description="what became of plan.expected; seconds of training, trials included, and publishing")
    validation_accuracy: Fraction | None
    validation_interval: Interval | None
    num_images: dict[str, int] = Field(description="used per part, left_out, rejected, ignored")
    findings: tuple[Finding, ...] = ()
    seconds: float
    seconds_by_step: dict[str, float]
    notes: tuple[str, ...] = ()


class BenchCell(Value):
    """One fit of ``tl bench``: a backbone with a strategy and a seed; ``error`` says why it failed."""

    images: str = Field(description="name of the folder")
    backbone: str
    strategy: str
    seed: int
    error: str | None = None
    accuracy: Fraction | None = Field(default=None, description="on the test split")
    interval: Interval | None = Field(default=None, description="95% confidence interval")
    num_test: int = 0
    expected: Fraction | None = Field(default=None, description="accuracy predicted by the plan")
    expected_interval: Interval | None = None
    seconds: float | None = Field(default=None, description="of the whole fit, from an empty cache")
    latency_ms: float | None = Field(default=None, description="latency of one image")
    memory_mib: float | None = Field(default=None, description="peak memory of the process")
    size_mib: float | None = Field(default=None, description="size of the version in the registry")


class Prediction(Value):
    """What the model says of one image, or why it can't say anything."""

    path: str
    label: str | None = None
    probability: Fraction | None = None
    top: dict[str, float] = Field(default_factory=dict, description="the most probable classes, best first")
    abstained: str | None = Field(default=None, description="why the model would rather not say")
    error: str | None = None
