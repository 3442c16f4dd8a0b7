"""A plan with all that it works on, and what carrying it out and trying it out have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from math import inf
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.evaluation import calibrated_losses
from automl_tl.evaluation.reference_features import MAX_REFERENCE_IMAGES
from automl_tl.models.bundle import build_encoder
from automl_tl.models.engines import blocks_digest
from automl_tl.models.heads import ClosedFormHead, TrainedHead
from automl_tl.plugin_host import OfferedBackbone
from automl_tl.runtime.budget import Stopwatch
from automl_tl.training.affordable import MIB_PER_PARAMETER
from automl_tl.training.checkpoints import Checkpoints
from automl_tl.training.fitted import Evidence
from automl_tl.training.flips import flips_are_safe
from automl_tl.training.heads import calibrated, head_of, new_head
from automl_tl.training.images import LabeledImages
from automl_tl.training.inputs import Prefix
from automl_tl.training.solve import Solution, Solver
from automl_tl.training.speed import forward_speed
from automl_tl.training.trainer import Run
from automl_tl.training.workspace import Workspace
from automl_tl.values import Part, Plan, Recipe

__all__ = ["DEFAULT_SOLVER", "Job", "calibrated_loss", "new_run", "solution_of", "validation_scores"]

DEFAULT_SOLVER: Solver = "average"


@dataclass(frozen=True)
class Job:
    """A plan with all that it works on."""

    plan: Plan
    backbone: OfferedBackbone
    classes: tuple[str, ...]
    images: Mapping[Part, LabeledImages]
    workspace: Workspace
    watch: Stopwatch

    def reserve_s(self, encoder: nn.Sequential) -> float:
        """What measuring and publishing it will take once it is trained: it has to look at images anew."""
        if self.workspace.deadline.budget_s is None:
            return 0.0
        num_images = len(self.images["test"]) + min(len(self.learning), MAX_REFERENCE_IMAGES)
        return self.publishing_s + num_images * self.look_s(encoder)

    def look_s(self, encoder: nn.Sequential) -> float:
        """What looking at one image takes, as planning measured it."""
        speed = forward_speed(
            encoder,
            self.plan.preprocessing,
            self.learning,
            cache_dir=self.workspace.cache_dir,
            progress=self.workspace.progress,
        )
        return max(speed.load_s, speed.forward_s)

    @property
    def publishing_s(self) -> float:
        """What publishing alone will take."""
        return self.workspace.publishing_s(MIB_PER_PARAMETER * (self.backbone.card.num_parameters or 0))

    @property
    def recipe(self) -> Recipe:
        """Of the plan."""
        return self.plan.recipe

    @property
    def learning(self) -> LabeledImages:
        """Training and validation images: a solved head chooses by cross-validation, so both may teach."""
        return self.images["train"] + self.images["validation"]

    def new_encoder(self, *, pretrained: bool) -> nn.Sequential:
        """The encoder as training finds it."""
        weights = self.plan.constraints.weights
        file = None if weights in (None, "none") else Path(weights)
        return build_encoder(self.backbone, pretrained=pretrained, weights_file=file, progress=self.workspace.progress)

    def prefix(self, encoder: nn.Sequential, *, pretrained: bool = True) -> Prefix:
        """The whole encoder as a frozen part."""
        cache = self.workspace.cache if pretrained else self.workspace.scratch
        return Prefix(encoder, self.plan.preprocessing, cache, gives_features=True)

    def validation(self) -> LabeledImages | None:
        """Absent where there are too few images for such a part."""
        return self.images["validation"] if len(self.images["validation"]) else None


def solution_of(
    job: Job, encoder: nn.Sequential, images: LabeledImages, *, reserve_s: float = -inf
) -> tuple[Solution, Evidence]:
    """A head solved on the features of ``images``, and what it says of images that it did not learn from.

    Raises:
        OutOfTime: no more than ``reserve_s`` of the budget were left before all features were there.
    """
    prefix = job.prefix(encoder)
    rows = replace(prefix, cache=prefix.cache.within(job.workspace.deadline, reserve_s=reserve_s)).plain(images)
    job.watch.lap("features")
    solution = job.workspace.solve(
        rows.all(),
        images,
        solver=job.recipe.head.solver or DEFAULT_SOLVER,
        num_classes=len(job.classes),
        seed=job.plan.constraints.seed,
        in_place=True,
    )
    job.watch.lap("head")
    return solution, Evidence(images, rows, solution.out_of_fold)


def new_run(
    job: Job, images: LabeledImages, validation: LabeledImages | None, recipe: Recipe
) -> tuple[Run, Solution | None, Evidence | None]:
    """A run from the start, with the probe that it is compared with and what that says.

    Raises:
        OutOfTime: the budget ended before all features were there.
    """
    torch.manual_seed(job.plan.constraints.seed)
    encoder = job.new_encoder(pretrained=recipe.pretrained)
    reserve_s = job.reserve_s(encoder)
    solution, evidence = solution_of(job, encoder, images, reserve_s=reserve_s) if recipe.pretrained else (None, None)
    if recipe.head.start == "solved" and solution is not None and evidence is not None:
        head: ClosedFormHead | TrainedHead = calibrated(solution, evidence.features, images.labels)
    else:
        width = job.backbone.card.feature_dim
        head = new_head(recipe.head, feature_dim=width, num_classes=len(job.classes))
    flips = solution is None or flips_are_safe(job.prefix(encoder), images, solution, seed=job.plan.constraints.seed)
    if not flips:
        job.workspace.progress.info("mirrored images are not recognized as well: no flips")
    part = "all" if validation is None else "train"
    run = Run(
        blocks=encoder,
        head=head,
        recipe=recipe,
        preprocessing=job.plan.preprocessing,
        train=images,
        validation=validation,
        num_classes=len(job.classes),
        flips=flips,
        seed=job.plan.constraints.seed,
        workspace=job.workspace,
        reserve_s=reserve_s,
        checkpoints=Checkpoints(job.workspace.cache_dir, _run_digest(job, recipe, part, encoder)),
    )
    return run, solution, evidence


def _run_digest(job: Job, recipe: Recipe, part: str, encoder: nn.Sequential) -> str:
    """All that makes a run what it is; the place doesn't, nor does the time, but a budget may cut it."""
    offer, budget_s = job.backbone.offer, job.workspace.deadline.budget_s
    total = hashlib.sha256(f"{version('automl-tl')} {torch.__version__} {part} {job.plan.backbone}".encode())
    total.update(f"{offer.distribution} {offer.version} {blocks_digest(encoder)} {budget_s}".encode())
    total.update(f"{recipe.model_dump_json()} {job.plan.preprocessing.model_dump_json()} {job.plan.constraints.seed}".encode())
    for images in job.images.values():
        for record, label in zip(images.records, images.labels, strict=True):
            total.update(f"{record.digest} {label};".encode())
        total.update(b"|")
    return total.hexdigest()


@torch.no_grad()
def validation_scores(job: Job, probe: Solution) -> NDArray[np.float32]:
    """What ``probe`` says of the validation images, ``(M, C)``."""
    encoder = job.new_encoder(pretrained=True)
    features = torch.from_numpy(job.prefix(encoder).plain(job.images["validation"]).all())
    scores: NDArray[np.float32] = head_of(probe)(features).numpy()
    return scores


def calibrated_loss(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Mean log-loss of ``scores`` ``(N, C)`` at their best temperature: what trained weights and the probe are compared by."""
    return float(calibrated_losses(scores, labels).mean())
