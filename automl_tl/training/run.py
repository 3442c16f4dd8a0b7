"""A training run: what it starts from, and how far it has come.

``TrainingTask`` is a plan with its images; ``start_run`` turns it into a ``TrainingRun``; the loop (``loop.py``) carries the
run out and returns a ``TrainingState``. Nothing here takes an optimizer step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automl_tl.evaluation.reference_features import MAX_REFERENCE_IMAGES
from automl_tl.models.bundle import build_encoder
from automl_tl.models.engines import blocks_digest, load_batches, load_pixels
from automl_tl.models.heads import HeadShape, SingleHead, TrainedHead
from automl_tl.plugin_host import LoadedBackbone
from automl_tl.plugin_host.levels import parts_of
from automl_tl.runtime.budget import Stopwatch
from automl_tl.runtime.paths import absolute
from automl_tl.training.checkpoints import Checkpoints
from automl_tl.training.class_weights import class_weights, weights_of
from automl_tl.training.closed_form import DEFAULT_SOLVER, Solution, calibrated, head_of
from automl_tl.training.images import LabeledImages
from automl_tl.training.speed import Speed, forward_speed
from automl_tl.training.views import Origin, Prefix
from automl_tl.training.workspace import MIB_PER_PARAMETER, CachedRows, Workspace
from automl_tl.values import Head, Plan, Preprocessing, Recipe, SplitName

Row = dict[str, float | str]  # one epoch of the learning curves
BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
MAX_FLIPPED_IMAGES: Final = 128
MAX_ACCURACY_DROP: Final = 0.05  # flipped training images against out-of-fold predictions; decision 9


@dataclass(frozen=True)
class Evidence:
    """What a linear probe predicts out of fold: log-probabilities ``(N, C)`` of ``images`` and their cached features."""

    images: LabeledImages
    rows: CachedRows
    out_of_fold: NDArray[np.float64]
    adjustment: float = 0.0  # strength of the probe's logit adjustment

    @property
    def features(self) -> NDArray[np.float32]:
        """Features ``(N, D)``, read from the cache each time: those of many images would fill the memory."""
        return self.rows.all()


@dataclass(frozen=True)
class TrainingRun:
    """What the training loop starts from; ``blocks`` and ``head`` are changed in place."""

    blocks: nn.Sequential
    head: SingleHead
    recipe: Recipe
    preprocessing: Preprocessing
    train: LabeledImages
    validation: LabeledImages | None  # these choose the epoch to keep; None: the last one
    num_classes: int
    flips: bool  # augmentation may mirror images
    seed: int
    workspace: Workspace
    checkpoints: Checkpoints | None = None
    class_weights: NDArray[np.float64] | None = None  # (C,), on average 1 over the training images
    reserve_s: float = 0.0  # of the budget, to be left after training
    processes: int = 1  # that train, on this machine
    pause_after: int | None = None  # epochs, over all phases; a later run resumes from the checkpoint
    on_epoch: Callable[[Row], object] = lambda row: None  # called with each row of the curves, also those of a checkpoint


@dataclass
class TrainingState:
    """How far a run has come."""

    curves: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept_weights: dict[str, Tensor] = field(default_factory=dict)  # tensors of the kept epoch; empty without validation images
    logits: NDArray[np.float32] | None = None  # (N, C) of the validation images under these
    stopped: bool = False  # the run ended before its recipe did

    @property
    def epochs(self) -> int:
        """Number of finished epochs, over all phases."""
        return len(self.curves)

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest validation loss, counted from 1; the last one without validation images."""
        losses = [row["validation_loss"] for row in self.curves if "validation_loss" in row]
        return 1 + losses.index(min(losses)) if losses else self.epochs

    @property
    def kept_epoch(self) -> int:
        """The last epoch whose loss is within one standard error of the best, counted from 1.

        The one-standard-error rule (Breiman and others, 1984), in favor of more training: with few images an early best epoch
        is mostly luck (decision 38).
        """
        best = self.curves[self.best_epoch - 1]
        if "validation_loss" not in best:
            return self.epochs
        worst = float(best["validation_loss"]) + float(best["standard_error"])
        return max(number for number, row in enumerate(self.curves, start=1) if float(row["validation_loss"]) <= worst)


@dataclass(frozen=True)
class TrainingTask:
    """A plan with the backbone, the images and the workspace that it is carried out with."""

    plan: Plan
    backbone: LoadedBackbone
    classes: tuple[str, ...]
    images: Mapping[SplitName, LabeledImages]
    workspace: Workspace
    also_reserve_s: float = 0.0  # of the budget, for what follows after training
    watch: Stopwatch = field(default_factory=Stopwatch)
    on_epoch: Callable[[Row], object] = lambda row: None  # of the fit, not of the refit on all images

    @property
    def learning(self) -> LabeledImages:
        """Training and validation images: a closed-form head is chosen by cross-validation and learns from both."""
        return self.images["train"] + self.images["validation"]

    def on(self, backbone: LoadedBackbone, recipe: Recipe) -> TrainingTask:
        """Return the task of one member of an averaged model.

        Args:
            backbone: the member.
            recipe: for it.
        """
        card = backbone.card
        update = {"backbone": card.name, "preprocessing": card.preprocessing, "recipe": recipe, "averaged": False}
        return replace(self, plan=self.plan.model_copy(update=update), backbone=backbone)

    @property
    def class_weights(self) -> NDArray[np.float64] | None:
        """How much an image of each class ``(C,)`` counts; ``None``: all alike."""
        return class_weights(self.plan.constraints, self.classes, self.learning.labels)

    @property
    def publishing_s(self) -> float:
        """Seconds that publishing the model will take."""
        return self.workspace.publishing_s(MIB_PER_PARAMETER * (self.backbone.card.num_parameters or 0))

    def speed(self, encoder: nn.Sequential) -> Speed:
        """Inference speed of ``encoder``, as planning measured it."""
        return forward_speed(self.prefix(encoder), self.learning)

    def reserve_s(self, encoder: nn.Sequential) -> float:
        """Seconds that evaluating and publishing will take after training, when features are extracted again."""
        if self.workspace.deadline.budget_s is None:
            return 0.0
        num_images = len(self.images["test"]) + min(len(self.learning), MAX_REFERENCE_IMAGES)
        return self.publishing_s + self.also_reserve_s + num_images * self.speed(encoder).image_s

    def new_encoder(self, *, pretrained: bool) -> nn.Sequential:
        """The encoder before training."""
        weights = self.plan.constraints.weights
        file = None if weights in (None, "none") else Path(weights)
        return build_encoder(self.backbone, pretrained=pretrained, weights_file=file, progress=self.workspace.progress)

    def prefix(self, encoder: nn.Sequential, *, pretrained: bool = True) -> Prefix:
        """Return the whole encoder as the frozen prefix of the network.

        Args:
            encoder: all blocks.
            pretrained: whether the weights are the pretrained ones, whose activations later commands use again.
        """
        cache = self.workspace.cache if pretrained else self.workspace.scratch
        weights = self.plan.constraints.weights
        origin = Origin(self.backbone.card.name, None if weights is None else absolute(weights)) if pretrained else None
        return Prefix(encoder, self.plan.preprocessing, cache, gives_features=True, origin=origin)


def fit_probe(
    task: TrainingTask, encoder: nn.Sequential, images: LabeledImages, *, reserve_s: float = -inf
) -> tuple[Solution, Evidence]:
    """Return the recipe's closed-form head, fitted on the features of ``images``, and what it predicts out of fold.

    Args:
        task: gives the recipe and the workspace.
        encoder: pretrained, all blocks.
        images: to learn from.
        reserve_s: seconds of the budget to leave.

    Raises:
        OutOfTime: only ``reserve_s`` seconds were left before all features were extracted.
    """
    prefix, workspace, solver = task.prefix(encoder), task.workspace, task.plan.recipe.head.solver or DEFAULT_SOLVER
    rows = replace(prefix, cache=prefix.cache.within(workspace.deadline, reserve_s=reserve_s)).plain(images)
    task.watch.lap("features")
    num_classes, seed = len(task.classes), task.plan.constraints.seed
    weights, parts = class_weights(task.plan.constraints, task.classes, images.labels), parts_of(encoder)
    solution = workspace.solve(
        rows.all(), images, solver=solver, num_classes=num_classes, seed=seed, parts=parts, class_weights=weights
    )
    task.watch.lap("head")
    return solution, Evidence(images, rows, solution.out_of_fold, solution.adjustment)


def start_run(
    task: TrainingTask, images: LabeledImages, validation: LabeledImages | None, recipe: Recipe
) -> tuple[TrainingRun, Solution | None, Evidence | None]:
    """Prepare a run, and the linear probe that it is compared with.

    Args:
        task: gives backbone, classes and workspace.
        images: to train on.
        validation: choose the epoch to keep; ``None``: the last one is kept.
        recipe: the task's, perhaps shortened.

    Returns:
        The run, the probe, and what it predicts out of fold; random weights have no probe.

    Raises:
        OutOfTime: the budget ended before all features were extracted.
    """
    # 1) The encoder and, if it is pretrained, a linear probe on its features.
    seed = task.plan.constraints.seed
    torch.manual_seed(seed)
    encoder = task.new_encoder(pretrained=recipe.pretrained)
    reserve_s = task.reserve_s(encoder)
    solution, evidence = fit_probe(task, encoder, images, reserve_s=reserve_s) if recipe.pretrained else (None, None)
    # 2) The head: the probe, or a new one.
    weights = class_weights(task.plan.constraints, task.classes, images.labels)
    if recipe.head.start == "solved" and solution is not None and evidence is not None:
        head: SingleHead = calibrated(solution, evidence.features, images.labels)
    else:
        head = new_head(recipe.head, feature_dim=task.backbone.card.feature_dim, num_classes=len(task.classes))
    # 3) The augmentation: mirrored views only where the probe recognizes mirrored images.
    flips = solution is None or _flips_are_safe(task.prefix(encoder), images, solution, seed=seed)
    if not flips:
        task.workspace.progress.info("horizontal flips disabled: they hurt accuracy on this dataset")
    split = "all" if validation is None else "train"
    run = TrainingRun(
        blocks=encoder,
        head=head,
        recipe=recipe,
        preprocessing=task.plan.preprocessing,
        train=images,
        validation=validation if validation is not None and len(validation) else None,
        num_classes=len(task.classes),
        flips=flips,
        seed=seed,
        workspace=task.workspace,
        class_weights=weights,
        reserve_s=reserve_s,
        processes=task.plan.processes,
        checkpoints=Checkpoints(task.workspace.cache_dir, _run_digest(task, recipe, split, encoder)),
    )
    return run, solution, evidence


def new_head(head: Head, *, feature_dim: int, num_classes: int) -> TrainedHead:
    """Return an untrained head.

    Args:
        head: hidden layers, and how to start: ``zero`` sets the last layer to zero.
        feature_dim: input width.
        num_classes: output width.
    """
    shape = HeadShape(kind="trained", feature_dim=feature_dim, num_classes=num_classes, hidden_dims=head.hidden_dims)
    module = TrainedHead(shape)
    if head.start == "zero":
        nn.init.zeros_(module.last.weight)
        nn.init.zeros_(module.last.bias)
    return module


def _flips_are_safe(encoder: Prefix, images: LabeledImages, solution: Solution, *, seed: int) -> bool:
    """Whether a probe classifies the mirrored images that it was fitted on nearly as well: digits change, ants do not."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(images))[:MAX_FLIPPED_IMAGES])
    sample = images.at(rows.tolist())

    def compute(missing: LabeledImages) -> Iterator[NDArray[np.float32]]:
        mirrored = load_batches(missing.paths, lambda path: load_pixels(missing.read(path), encoder.preprocessing)[:, ::-1])
        return map(encoder.engine(len(sample)), mirrored)

    key, description = [*encoder.key(), "mirrored"], "testing horizontal flips"
    features = encoder.cache.rows(sample, key, compute, description=description)
    with torch.no_grad():
        predicted = head_of(solution)(torch.from_numpy(features.all())).argmax(dim=1).numpy()
    unflipped_accuracy = float((solution.out_of_fold.argmax(axis=1) == images.labels).mean())
    return float((predicted == sample.labels).mean()) >= unflipped_accuracy - MAX_ACCURACY_DROP


def _run_digest(task: TrainingTask, recipe: Recipe, split: str, encoder: nn.Sequential) -> str:
    """sha256 of everything that determines a run; a budget does, since it may shorten phases, the folder does not."""
    plan, plugin = task.plan, task.backbone.plugin
    facts = (
        *(version("automl-tl"), torch.__version__, split, plan.backbone, plugin.distribution, plugin.version),
        *(blocks_digest(encoder), task.workspace.deadline.budget_s, plan.constraints.seed),
        *(recipe.model_dump_json(), plan.preprocessing.model_dump_json(), plan.processes, weights_of(plan.constraints)),
    )
    total = hashlib.sha256("\0".join(map(str, facts)).encode())
    for images in task.images.values():
        for digest, label in zip(images.digests, images.labels, strict=True):
            total.update(f"{digest} {label};".encode())
        total.update(b"|")
    return total.hexdigest()
