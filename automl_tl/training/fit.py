"""Carry out a plan: from images to a model in files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.catalog import OfferedBackbone
from automl_tl.clock import OutOfTime, Stopwatch
from automl_tl.evaluation import fit_temperature, softmax, wilson
from automl_tl.evaluation.memory import MAX_REMEMBERED
from automl_tl.inference.bundle import BundleFacts, Classifier, build_encoder, save_bundle
from automl_tl.inference.engines import blocks_digest
from automl_tl.inference.heads import SolvedHead, TrainedHead
from automl_tl.training.affordable import MIB_PER_PARAMETER, affordable, publishing_s
from automl_tl.training.bench import Bench
from automl_tl.training.checkpoints import Checkpoints
from automl_tl.training.fitted import Evidence, Fitted
from automl_tl.training.flips import flips_are_safe
from automl_tl.training.heads import calibrated, head_of, new_head
from automl_tl.training.images import LabelledImages
from automl_tl.training.inputs import Prefix
from automl_tl.training.solve import Solution, Solver
from automl_tl.training.speed import forward_speed
from automl_tl.training.trainer import Progress, Run, train
from automl_tl.values import FitResult, Part, Plan, Recipe

__all__ = ["DEFAULT_SOLVER", "Trial", "fit", "trial"]

DEFAULT_SOLVER: Solver = "average"
REFIT_SHARE: Final = 1.7  # of the seconds of the epochs: there are more images, and their views have to be computed


@dataclass(frozen=True)
class Learned:
    """What learning gave, before it is a model in files. ``scores`` ``(N, C)`` are out of fold or of validation images."""

    encoder: nn.Sequential
    head: SolvedHead | TrainedHead
    scores: NDArray[np.floating]
    labels: NDArray[np.int64]
    notes: tuple[str, ...]
    curves: tuple[dict[str, float | str], ...] = ()
    runs: tuple[Run, ...] = ()  # whose weights these are: none where the encoder stayed as it was
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Job:
    """A plan with all that it works on."""

    plan: Plan
    backbone: OfferedBackbone
    classes: tuple[str, ...]
    images: Mapping[Part, LabelledImages]
    bench: Bench
    watch: Stopwatch

    @cached_property
    def reserve_s(self) -> float:
        """What measuring and publishing a trained network will take: it has to look at images anew."""
        if self.bench.deadline.budget_s is None:
            return 0.0
        speed = forward_speed(
            self.new_encoder(pretrained=self.recipe.pretrained),
            self.plan.preprocessing,
            self.learning,
            cache_dir=self.bench.cache_dir,
            story=self.bench.story,
        )
        num_images = len(self.images["test"]) + min(len(self.learning), MAX_REMEMBERED)
        return self.publishing_s + num_images * max(speed.load_s, speed.forward_s)

    @property
    def publishing_s(self) -> float:
        """What publishing alone will take."""
        return publishing_s(MIB_PER_PARAMETER * (self.backbone.card.num_parameters or 0))

    @property
    def recipe(self) -> Recipe:
        """Of the plan."""
        return self.plan.recipe

    @property
    def learning(self) -> LabelledImages:
        """Training and validation images: a solved head chooses by cross-validation, so both may teach."""
        return self.images["train"] + self.images["validation"]

    def new_encoder(self, *, pretrained: bool) -> nn.Sequential:
        """The encoder as training finds it."""
        weights = self.plan.wishes.weights
        file = None if weights in (None, "none") else Path(weights)
        return build_encoder(self.backbone, pretrained=pretrained, weights_file=file, story=self.bench.story)

    def prefix(self, encoder: nn.Sequential, *, pretrained: bool = True) -> Prefix:
        """The whole encoder as a frozen part."""
        cache = self.bench.cache if pretrained else self.bench.scratch
        return Prefix(encoder, self.plan.preprocessing, cache, gives_features=True)

    def validation(self) -> LabelledImages | None:
        """Absent where there are too few images for such a part."""
        return self.images["validation"] if len(self.images["validation"]) else None


def fit(
    plan: Plan, backbone: OfferedBackbone, classes: tuple[str, ...], images: Mapping[Part, LabelledImages], bench: Bench
) -> Fitted:
    """Fit ``plan`` on the training and validation images. The same plan on the same images gives the same model."""
    torch.manual_seed(plan.wishes.seed)
    job = Job(plan, backbone, classes, images, bench, Stopwatch())
    learned = _trained(job) if plan.recipe.phases else _solved(job, job.learning, ())
    return _finished(job, learned)


@dataclass(frozen=True)
class Trial:
    """What a recipe came to on the validation images, beside a probe of the same training images: probabilities ``(M, C)``."""

    labels: NDArray[np.int64]
    trained: NDArray[np.float64]
    probe: NDArray[np.float64]


def trial(
    plan: Plan,
    backbone: OfferedBackbone,
    classes: tuple[str, ...],
    images: Mapping[Part, LabelledImages],
    bench: Bench,
    *,
    epochs: int,
) -> Trial | None:
    """Carry out the first ``epochs`` epochs of ``plan``; ``fit`` and later trials go on from there. ``None``: no time for one.

    Raises:
        TrainingError: the loss is no number any more.
    """
    job = Job(plan, backbone, classes, images, bench, Stopwatch())
    try:
        run, probe, _ = _new_run(job, images["train"], job.validation(), plan.recipe)
        if probe is None:  # a recipe that starts from random weights is compared with the pretrained network all the same
            probe, _ = _solution(job, job.new_encoder(pretrained=True), images["train"])
    except OutOfTime:
        return None
    progress = train(replace(run, pause_after=epochs))
    if progress.logits is None:
        return None
    labels = images["validation"].labels
    of_probe = _validation_scores(job, probe)
    trained, at_start = (softmax(each, fit_temperature(each, labels)) for each in (progress.logits, of_probe))
    return Trial(labels, trained, at_start)


def _solved(job: Job, images: LabelledImages, notes: tuple[str, ...]) -> Learned:
    encoder, num_test = job.new_encoder(pretrained=job.recipe.pretrained), len(job.images["test"])
    used = affordable(images, job.prefix(encoder), job.bench.deadline, num_test=num_test, reserve_s=job.publishing_s)
    if len(used) < len(images):
        notes = (*notes, f"{len(used)} of {len(images)} images were learned from: there was no time for more")
    solution, evidence = _solution(job, encoder, used)
    notes = (*notes, *solution.notes)
    return Learned(encoder, head_of(solution), solution.out_of_fold, used.labels, notes, evidence=evidence)


def _solution(
    job: Job, encoder: nn.Sequential, images: LabelledImages, *, reserve_s: float = -inf
) -> tuple[Solution, Evidence]:
    prefix = job.prefix(encoder)
    features = replace(prefix, cache=prefix.cache.within(job.bench.deadline, reserve_s=reserve_s)).plain(images).all()
    job.watch.lap("features")
    solution = job.bench.solve(
        features,
        images,
        solver=job.recipe.head.solver or DEFAULT_SOLVER,
        num_classes=len(job.classes),
        seed=job.plan.wishes.seed,
    )
    job.watch.lap("head")
    return solution, Evidence(images, features, solution.out_of_fold)


def _trained(job: Job) -> Learned:
    """Train, compare with the probe on the validation images, keep the better, and train again on all images."""
    try:
        run, probe, evidence = _new_run(job, job.images["train"], job.validation(), job.recipe)
    except OutOfTime:
        return _solved(job, job.learning, ("there was no time to train: a linear probe is what there is",))
    progress = train(run)
    job.watch.lap("training")
    if not progress.epochs:
        return _solved(job, job.learning, (*progress.notes, "no epoch was finished: a linear probe is what there is"))
    if progress.logits is None:
        nothing = np.zeros((0, len(job.classes)), np.float32), np.zeros(0, np.int64)
        return Learned(run.blocks, _head(run), *nothing, tuple(progress.notes), tuple(progress.curves), (run,), evidence)
    notes = [*progress.notes]
    if probe is not None and (verdict := _probe_is_better(job, probe, progress)):
        if job.plan.wishes.hidden_dims is None:
            notes.append(f"the linear probe is kept: {verdict}")
            return replace(_solved(job, job.learning, tuple(notes)), curves=tuple(progress.curves))
        notes.append(f"the head that was asked for is kept, but a linear probe does better: {verdict}")
    again = _refit(job, progress, run, notes)
    return Learned(
        again.blocks,
        _head(again),
        progress.logits,
        job.images["validation"].labels,
        tuple(notes),
        tuple(progress.curves),
        (run, again),
        evidence,
    )


def _new_run(
    job: Job, images: LabelledImages, validation: LabelledImages | None, recipe: Recipe
) -> tuple[Run, Solution | None, Evidence | None]:
    """A run from the start, with the probe that it is compared with and what that says."""
    torch.manual_seed(job.plan.wishes.seed)
    encoder = job.new_encoder(pretrained=recipe.pretrained)
    solution, evidence = _solution(job, encoder, images, reserve_s=job.reserve_s) if recipe.pretrained else (None, None)
    features = job.prefix(encoder).plain(images)
    if recipe.head.start == "solved" and solution is not None:
        head: SolvedHead | TrainedHead = calibrated(solution, features.all(), images.labels)
    else:
        width = job.backbone.card.feature_dim
        head = new_head(recipe.head, feature_dim=width, num_classes=len(job.classes))
    flips = solution is None or flips_are_safe(job.prefix(encoder), images, solution, seed=job.plan.wishes.seed)
    if not flips:
        job.bench.story.say("mirrored images are not recognised as well: no flips")
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
        seed=job.plan.wishes.seed,
        bench=job.bench,
        reserve_s=job.reserve_s,
        checkpoints=Checkpoints(job.bench.cache_dir, _run_digest(job, recipe, part, encoder)),
    )
    return run, solution, evidence


def _run_digest(job: Job, recipe: Recipe, part: str, encoder: nn.Sequential) -> str:
    """All that makes a run what it is; the place doesn't, nor does the time, but a run that a budget cuts is one of its own."""
    offer, is_limited = job.backbone.offer, job.bench.deadline.budget_s is not None
    total = hashlib.sha256(f"{version('automl-tl')} {torch.__version__} {part} {job.plan.backbone}".encode())
    total.update(f"{offer.distribution} {offer.version} {blocks_digest(encoder)} {is_limited}".encode())
    total.update(f"{recipe.model_dump_json()} {job.plan.preprocessing.model_dump_json()} {job.plan.wishes.seed}".encode())
    for images in job.images.values():
        for record, label in zip(images.records, images.labels, strict=True):
            total.update(f"{record.digest} {label};".encode())
        total.update(b"|")
    return total.hexdigest()


def _probe_is_better(job: Job, probe: Solution, progress: Progress) -> str | None:
    """Why the probe stays, or ``None``: both are judged by the log-loss on the validation images, each at its temperature."""
    validation, scores = job.images["validation"], _validation_scores(job, probe)
    assert progress.logits is not None
    probe_loss, trained_loss = (_loss(each, validation.labels) for each in (scores, progress.logits))
    if trained_loss <= probe_loss:
        return None
    return (
        f"its log-loss on the {len(validation)} validation images is {probe_loss:.3f}, "
        f"after {job.plan.strategy} it was {trained_loss:.3f}"
    )


@torch.no_grad()
def _validation_scores(job: Job, probe: Solution) -> NDArray[np.float32]:
    """What ``probe`` says of the validation images, ``(M, C)``."""
    encoder = job.new_encoder(pretrained=True)
    features = torch.from_numpy(job.prefix(encoder).plain(job.images["validation"]).all())
    scores: NDArray[np.float32] = head_of(probe)(features).numpy()
    return scores


def _loss(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    probabilities = softmax(scores, fit_temperature(scores, labels))
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())


def _refit(job: Job, progress: Progress, run: Run, notes: list[str]) -> Run:
    """The same recipe on training and validation images, as far as the best epoch; the first run's model if time is short."""
    seconds = sum(float(row["seconds"]) for row in progress.curves[: progress.best_epoch])
    if not run.recipe.refit or progress.stopped or job.bench.deadline.left_s - job.reserve_s < REFIT_SHARE * seconds:
        return run
    job.bench.story.say("training again, on the validation images as well")
    try:
        again, _, _ = _new_run(job, job.learning, None, _cut(run.recipe, progress.best_epoch))
    except OutOfTime:
        return run
    finished = train(again)
    job.watch.lap("training on all")
    if finished.stopped:
        notes += [*finished.notes, "training again on all images was not finished: the model of the first time is kept"]
        return run
    return again


def _cut(recipe: Recipe, epochs: int) -> Recipe:
    """``recipe`` with its first ``epochs`` epochs."""
    phases, left = [], epochs
    for phase in recipe.phases:
        if left > 0:
            phases.append(phase.model_copy(update={"epochs": min(phase.epochs, left)}))
        left -= phase.epochs
    return recipe.model_copy(update={"phases": tuple(phases), "patience_epochs": None})


def _head(run: Run) -> SolvedHead | TrainedHead:
    assert isinstance(run.head, SolvedHead | TrainedHead)
    return run.head


def _finished(job: Job, learned: Learned) -> Fitted:
    plan = job.plan
    head = learned.head.eval()
    facts = BundleFacts(
        classes=job.classes,
        preprocessing=plan.preprocessing,
        backbone=plan.backbone,
        backbone_from=f"{job.backbone.offer.distribution} {job.backbone.offer.version}",
        same_network_as=job.backbone.card.same_network_as,
        strategy=plan.strategy,
        head=head.shape,
        temperature=fit_temperature(learned.scores, learned.labels) if len(learned.labels) else 1.0,
    )
    classifier = Classifier(learned.encoder, head, facts)
    encoder_file, head_file, digest = save_bundle(job.bench.folder, classifier)
    job.watch.lap("saving")
    correct, total = int((learned.scores.argmax(axis=1) == learned.labels).sum()), len(learned.labels)
    result = FitResult(
        encoder_file=encoder_file,
        head_file=head_file,
        model_digest=digest,
        classes=job.classes,
        backbone=plan.backbone,
        strategy=plan.strategy,
        recipe=plan.recipe,
        preprocessing=plan.preprocessing,
        temperature=facts.temperature,
        validation_accuracy=correct / total if total else None,
        validation_interval=wilson(correct, total) if total else None,
        curves=learned.curves,
        seconds=job.watch.seconds,
        notes=learned.notes,
    )
    checkpoints = tuple(run.checkpoints for run in learned.runs if run.checkpoints)
    encoder = job.prefix(learned.encoder, pretrained=not learned.runs)
    held_out = learned.labels, softmax(learned.scores, facts.temperature)
    learned_from = job.learning if learned.runs or learned.evidence is None else learned.evidence.images
    return Fitted(result, classifier, encoder, checkpoints, learned.evidence, learned_from, held_out)
