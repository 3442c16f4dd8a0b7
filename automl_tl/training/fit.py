"""Carry out a plan: from images to a model in files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.errors import TrainingError
from automl_tl.evaluation import fit_temperature, softmax, wilson
from automl_tl.models.bundle import BundleFacts, Classifier, save_bundle
from automl_tl.models.heads import ClosedFormHead, TrainedHead
from automl_tl.plugin_host import OfferedBackbone
from automl_tl.runtime.budget import OutOfTime, Stopwatch
from automl_tl.training.affordable import Afterwards, affordable, solving_s
from automl_tl.training.fitted import Evidence, Fitted
from automl_tl.training.heads import head_of
from automl_tl.training.images import LabeledImages
from automl_tl.training.job import Job, calibrated_loss, new_run, solution_of, validation_scores
from automl_tl.training.solve import Solution
from automl_tl.training.trainer import Run, RunState, train
from automl_tl.training.workspace import Workspace
from automl_tl.values import FitResult, Part, Plan, Recipe

__all__ = ["fit"]

REFIT_SHARE: Final = 1.7  # of the seconds of the epochs: there are more images, and their views have to be computed


def fit(
    plan: Plan, backbone: OfferedBackbone, classes: tuple[str, ...], images: Mapping[Part, LabeledImages], workspace: Workspace
) -> Fitted:
    """Fit ``plan`` on the training and validation images. The same plan on the same images gives the same model."""
    job = Job(plan, backbone, classes, images, workspace, Stopwatch())
    learned = _trained(job) if plan.recipe.phases else _solved(job, job.learning, ())
    return _finished(job, learned)


@dataclass(frozen=True)
class Learned:
    """What learning gave, before it is a model in files. ``scores`` ``(N, C)`` are out of fold or of validation images."""

    encoder: nn.Sequential
    head: ClosedFormHead | TrainedHead
    scores: NDArray[np.floating]
    labels: NDArray[np.int64]
    notes: tuple[str, ...]
    curves: tuple[dict[str, float | str], ...] = ()
    runs: tuple[Run, ...] = ()  # whose weights these are: none where the encoder stayed as it was
    evidence: Evidence | None = None


def _solved(job: Job, images: LabeledImages, notes: tuple[str, ...]) -> Learned:
    torch.manual_seed(job.plan.constraints.seed)  # random weights as before, whose features are there
    encoder = job.new_encoder(pretrained=job.recipe.pretrained)
    used = images
    if job.workspace.deadline.left_s < inf:  # a budget, or Ctrl-C
        solving = solving_s(len(images), job.backbone.card.feature_dim, len(job.classes)) / len(images)
        afterwards = Afterwards(job.publishing_s, solving, num_test=len(job.images["test"]))
        used = affordable(images, job.prefix(encoder), job.workspace.deadline, afterwards, look_s=job.look_s(encoder))
    if len(used) < len(images):
        notes = (*notes, f"{len(used)} of {len(images)} images were learned from: there was no time for more")
    solution, evidence = solution_of(job, encoder, used)
    notes = (*notes, *solution.notes)
    return Learned(encoder, head_of(solution), solution.out_of_fold, used.labels, notes, evidence=evidence)


def _trained(job: Job) -> Learned:
    """Train, compare with the probe on the validation images, keep the better, and train again on all images."""
    try:
        run, probe, evidence = new_run(job, job.images["train"], job.validation(), job.recipe)
    except OutOfTime:
        return _solved(job, job.learning, ("there was no time to train: a linear probe is what there is",))
    state = train(run)
    job.watch.lap("training")
    if not state.epochs:
        return _solved(job, job.learning, (*state.notes, "no epoch was finished: a linear probe is what there is"))
    if state.logits is None:
        nothing = np.zeros((0, len(job.classes)), np.float32), np.zeros(0, np.int64)
        return Learned(run.blocks, _head(run), *nothing, tuple(state.notes), tuple(state.curves), (run,), evidence)
    notes = [*state.notes]
    if probe is not None and (verdict := _probe_is_better(job, probe, state)):
        if not job.plan.constraints.hidden_dims:
            notes.append(f"the linear probe is kept: {verdict}")
            return replace(_solved(job, job.learning, tuple(notes)), curves=tuple(state.curves))
        notes.append(f"the head that was asked for is kept, but a linear probe does better: {verdict}")
    again = _refit(job, state, run, notes)
    return Learned(
        again.blocks,
        _head(again),
        state.logits,
        job.images["validation"].labels,
        tuple(notes),
        tuple(state.curves),
        (run, again),
        evidence,
    )


def _probe_is_better(job: Job, probe: Solution, state: RunState) -> str | None:
    """Why the probe stays, or ``None``: both are judged by the log-loss on the validation images, each at its temperature."""
    validation, scores = job.images["validation"], validation_scores(job, probe)
    assert state.logits is not None
    probe_loss, trained_loss = (calibrated_loss(each, validation.labels) for each in (scores, state.logits))
    if trained_loss <= probe_loss:
        return None
    return (
        f"its log-loss on the {len(validation)} validation images is {probe_loss:.3f}, "
        f"after {job.plan.strategy} it was {trained_loss:.3f}"
    )


def _refit(job: Job, state: RunState, run: Run, notes: list[str]) -> Run:
    """The same recipe on training and validation images, as far as the kept epoch; the first run's model if time is short."""
    to_kept = state.curves[: state.kept_epoch]
    left_s, needed_s = (
        job.workspace.deadline.left_s - run.reserve_s,
        REFIT_SHARE * sum(float(row["seconds"]) for row in to_kept),
    )
    if not run.recipe.refit or state.stopped or left_s < needed_s:
        return run
    job.workspace.progress.info("training again, on the validation images as well")
    try:
        again, _, _ = new_run(job, job.learning, None, _cut(run.recipe, [str(row["phase"]) for row in to_kept]))
        finished = train(again)
    except OutOfTime:
        return run
    except KeyboardInterrupt:
        job.workspace.deadline.end()
        return run
    except TrainingError as error:
        notes.append(f"training again on all images failed: {error} The model of the first time is kept.")
        return run
    job.watch.lap("training on all")
    if finished.stopped or finished.epochs < len(to_kept):
        notes += [*finished.notes, "training again on all images was not finished: the model of the first time is kept"]
        return run
    return again


def _cut(recipe: Recipe, epochs: Sequence[str]) -> Recipe:
    """``recipe`` with these ``epochs``, named by their phases."""
    counts = Counter(epochs)
    phases = (phase.model_copy(update={"epochs": counts[phase.name]}) for phase in recipe.phases if counts[phase.name])
    return recipe.model_copy(update={"phases": tuple(phases), "patience_epochs": None})


def _head(run: Run) -> ClosedFormHead | TrainedHead:
    assert isinstance(run.head, ClosedFormHead | TrainedHead)
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
    encoder_file, head_file, digest = save_bundle(job.workspace.folder, classifier)
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
