"""Carry out a plan: fit it on all images, or try it out on the validation images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.errors import TrainingError
from automl_tl.evaluation import (
    calibrated_losses,
    fit_logit_adjustment,
    fit_temperature,
    softmax,
    wilson,
)
from automl_tl.evaluation.calibration import MIN_IMAGES
from automl_tl.models.bundle import BundleFacts, Classifier, save_bundle
from automl_tl.models.heads import AnyHead, average_heads, shift_logits
from automl_tl.plugin_host import LoadedBackbone
from automl_tl.plugin_host.ensemble import Ensemble, keep_lengths
from automl_tl.runtime.budget import OutOfTime
from automl_tl.training.checkpoints import Checkpoints
from automl_tl.training.class_weights import adjustment_direction
from automl_tl.training.closed_form import Solution, head_of, solving_s
from automl_tl.training.images import LabeledImages
from automl_tl.training.loop import train
from automl_tl.training.run import Evidence, Row, TrainingRun, TrainingState, TrainingTask, fit_probe, start_run
from automl_tl.training.speed import affordable_images
from automl_tl.training.views import Prefix
from automl_tl.values import FitResult, Recipe

REFIT_COST: Final = 1.7  # times the seconds of the kept epochs: more images, whose views have to be computed


@dataclass(frozen=True)
class Fitted:
    """A fitted model, in files and in memory."""

    result: FitResult
    classifier: Classifier
    encoder: Prefix
    checkpoints: tuple[Checkpoints, ...]  # of the runs that led to the model
    evidence: Evidence | None  # of the linear probe; None for random weights
    learned_from: LabeledImages
    # Labels (N,) and calibrated probabilities (N, C), out of fold or of the validation images.
    held_out: tuple[NDArray[np.int64], NDArray[np.float64]]

    def features(self, images: LabeledImages) -> NDArray[np.float32]:
        """Features ``(N, D)`` of ``images`` under the model's encoder."""
        return self.encoder.plain(images).all()

    def probabilities(self, images: LabeledImages) -> NDArray[np.float32]:
        """Calibrated probabilities ``(N, C)`` of ``images``."""
        return np.asarray(self.classifier.probabilities(torch.from_numpy(self.features(images))).numpy())

    def forget_checkpoints(self) -> None:
        """Delete the checkpoints, which are not needed once the model is published."""
        for checkpoints in self.checkpoints:
            checkpoints.remove()


@dataclass(frozen=True)
class Trial:
    """Validation labels ``(M,)``, and probabilities ``(M, C)`` of a recipe and of a linear probe of the same images."""

    labels: NDArray[np.int64]
    trained: NDArray[np.float64]
    probe: NDArray[np.float64]
    kept_share: float  # the kept epoch by the number of epochs; the refit takes that share of the recipe
    is_worse: bool  # the probe has the lower log-loss, so fit would keep it
    class_weights: NDArray[np.float64] | None = None  # (C,), how much an image of each class counts


def fit(task: TrainingTask) -> Fitted:
    """Fit a plan on the training and validation images. The same plan on the same images gives the same model.

    Raises:
        TrainingError: the loss is not finite, or one image does not fit in memory.
    """
    if isinstance(task.backbone, Ensemble) and task.plan.averaged:
        return _fit_averaged(task, task.backbone.members)
    return _save(task, _fit_by_training(task) if task.plan.recipe.phases else _fit_closed_form(task))


def trial(task: TrainingTask, *, epochs: int) -> Trial | None:
    """Return the trial of the first ``epochs`` of a plan, where ``fit`` resumes; ``None`` without time for one epoch.

    Args:
        task: plan, backbone and images.
        epochs: number of epochs, over all phases.

    Raises:
        TrainingError: the loss is not finite, or one image does not fit in memory.
    """
    plan, images = task.plan, task.images
    try:
        with task.workspace.deadline.interruptible():
            run, probe, evidence = start_run(task, images["train"], images["validation"], plan.recipe)
            if probe is None:  # a recipe that starts from random weights is compared with the pretrained network as well
                probe, _ = fit_probe(task, task.new_encoder(pretrained=True), images["train"])
    except OutOfTime:
        return None
    state = train(replace(run, pause_after=epochs))
    if state.logits is None:
        return None
    labels, probe_logits = images["validation"].labels, _validation_logits(task, probe)
    logits, _ = _adjusted(task, state.logits, evidence)
    weights = _weights(task, labels)
    trained, probed = (softmax(each, fit_temperature(each, labels, weights)) for each in (logits, probe_logits))
    is_worse = calibrated_losses(logits, labels, weights).mean() > calibrated_losses(probe_logits, labels, weights).mean()
    kept_share = state.kept_epoch / sum(phase.epochs for phase in plan.recipe.phases)
    would_keep_probe = plan.recipe.pretrained and not plan.constraints.hidden_dims
    is_worse = bool(is_worse) and would_keep_probe
    return Trial(labels, trained, probed, kept_share, is_worse=is_worse, class_weights=task.class_weights)


def _weights(task: TrainingTask, labels: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """How much images of ``labels`` ``(N,)`` count; ``None``: all alike."""
    return None if (weights := task.class_weights) is None else weights[labels]


@dataclass(frozen=True)
class Learned:
    """A model before it is saved."""

    encoder: nn.Sequential
    head: AnyHead
    logits: NDArray[np.floating]  # (N, C), out of fold or of the validation images
    labels: NDArray[np.int64]
    notes: tuple[str, ...]
    curves: tuple[Row, ...] = ()
    runs: tuple[TrainingRun, ...] = ()  # that trained the weights; empty if the encoder is unchanged
    evidence: Evidence | None = None


def _fit_closed_form(task: TrainingTask, *notes: str) -> Learned:
    """Fit a closed-form head on as many images as the budget allows."""
    plan, deadline, images = task.plan, task.workspace.deadline, task.learning
    torch.manual_seed(plan.constraints.seed)  # the same random weights as before, whose features are cached
    encoder = task.new_encoder(pretrained=plan.recipe.pretrained)
    used = images
    if deadline.left_s < inf:  # a budget, or Ctrl-C
        used = affordable_images(
            images,
            task.prefix(encoder),
            deadline,
            reserve_s=task.publishing_s,
            per_image_s=solving_s(len(images), task.backbone.card.feature_dim, len(task.classes)) / len(images),
            num_test=len(task.images["test"]),
            extraction_s=lambda: task.speed(encoder).image_s,
        )
    if len(used) < len(images):
        notes = (*notes, f"learned from {len(used)} of {len(images)} images: no time for more")
    solution, evidence = fit_probe(task, encoder, used)
    notes = (*notes, *solution.notes)
    return Learned(encoder, head_of(solution), solution.out_of_fold, used.labels, notes, evidence=evidence)


def _fit_by_training(task: TrainingTask) -> Learned:
    """Train, keep the better of the trained model and the probe on the validation images, and refit on all images."""
    validation = task.images["validation"]
    try:
        run, probe, evidence = start_run(task, task.images["train"], validation, task.plan.recipe)
    except OutOfTime:
        return _fit_closed_form(task, "no time left to fine-tune: keeping the linear probe")
    state = train(replace(run, on_epoch=task.on_epoch))
    task.watch.lap("training")
    notes = [*state.notes]
    if not state.epochs:
        return _fit_closed_form(task, *notes, "no epoch was finished: keeping the linear probe")
    logits = np.zeros((0, len(task.classes)), np.float32) if state.logits is None else state.logits
    logits, shift = _adjusted(task, logits, evidence)
    runs = [run]
    if state.logits is not None:
        if probe is not None and (reason := _why_probe_is_better(task, probe, logits)):
            if not task.plan.constraints.hidden_dims:
                notes.append(f"the linear probe is kept: {reason}")
                return replace(_fit_closed_form(task, *notes), curves=tuple(state.curves))
            notes.append(f"keeping the requested head, although a linear probe does better: {reason}")
        runs.append(_refit(task, state, run, notes))
    blocks, head, curves = runs[-1].blocks, runs[-1].head, tuple(state.curves)
    if shift is not None:
        shift_logits(head, shift)
        notes.append("logits adjusted for " + ("imbalanced classes" if task.class_weights is None else "class weights"))
    return Learned(blocks, head, logits, validation.labels, tuple(notes), curves, tuple(runs), evidence)


def _fit_averaged(task: TrainingTask, members: Sequence[LoadedBackbone]) -> Fitted:
    """Train on the first of two backbones, and average the probabilities with those of a closed-form head on the second."""
    training, probing = task.on(members[0], task.plan.recipe), task.on(members[1], Recipe())
    # 1) The trained member, with time left for the other. If the linear probe is better, the other goes alone.
    probe_s = probing.reserve_s(probing.new_encoder(pretrained=True)) - probing.publishing_s
    trained = _fit_by_training(replace(training, also_reserve_s=max(probe_s, 0.0)))
    frozen = _fit_closed_form(probing, *trained.notes)
    if not trained.runs or frozen.evidence is None:
        return _save(probing, frozen)
    # 2) Both predict the validation images that the closed-form head learned from, out of fold.
    known, rows = task.images["validation"].positions_in(frozen.evidence.images)
    temperature = fit_temperature(trained.logits, trained.labels, _weights(task, trained.labels))
    probabilities = softmax(trained.logits[known], temperature), np.exp(frozen.logits[rows])
    # 3) One encoder with both networks, one head with both heads.
    encoder = task.new_encoder(pretrained=True)
    keep_lengths(encoder).encoders[0].load_state_dict(trained.encoder.state_dict())
    average = Learned(
        encoder,
        average_heads([trained.head, frozen.head], [temperature, 1.0]),
        np.log(np.mean(probabilities, axis=0)),
        trained.labels[known],
        (
            *frozen.notes,
            f"{training.plan.strategy} on {members[0].card.name}, averaged with a linear probe on {members[1].card.name}",
        ),
        trained.curves,
        trained.runs,
        frozen.evidence,
    )
    return _save(task, average)


def _adjusted(
    task: TrainingTask, logits: NDArray[np.float32], evidence: Evidence | None
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """Adjust validation ``logits`` ``(M, C)`` of a trained model for weighted or strongly imbalanced classes; return the shift.

    With too few validation images to fit the strength, it is that of the probe, which is fitted out of fold (decision 50).
    """
    log_prior = adjustment_direction(task.class_weights, task.learning.labels, len(task.classes))
    if log_prior is None:
        return logits, None
    labels = task.images["validation"].labels
    if len(logits) >= MIN_IMAGES:
        _, shift = fit_logit_adjustment(logits, labels, log_prior, _weights(task, labels))
    else:
        shift = (evidence.adjustment if evidence else 0.0) * log_prior
    return (logits - shift).astype(np.float32), shift


@torch.no_grad()
def _validation_logits(task: TrainingTask, probe: Solution) -> NDArray[np.float32]:
    """Log-probabilities ``(M, C)`` of the validation images under ``probe``."""
    encoder = task.new_encoder(pretrained=True)
    features = torch.from_numpy(task.prefix(encoder).plain(task.images["validation"]).all())
    return np.asarray(head_of(probe)(features).numpy())


def _why_probe_is_better(task: TrainingTask, probe: Solution, trained: NDArray[np.float32]) -> str | None:
    """Why the probe is kept, by its log-loss and the trained model's, both at the best temperature; or ``None``."""
    labels = task.images["validation"].labels
    weights = _weights(task, labels)
    losses = (calibrated_losses(logits, labels, weights).mean() for logits in (_validation_logits(task, probe), trained))
    probe_loss, trained_loss = map(float, losses)
    if trained_loss <= probe_loss:
        return None
    losses_text = f"is {probe_loss:.3f}, that of {task.plan.strategy} is {trained_loss:.3f}"
    return f"its log-loss on the {len(labels)} validation images {losses_text}"


def _refit(task: TrainingTask, state: TrainingState, run: TrainingRun, notes: list[str]) -> TrainingRun:
    """Train the recipe up to the kept epoch on training and validation images; return ``run`` if time is short."""
    to_kept = state.curves[: state.kept_epoch]
    left_s = task.workspace.deadline.left_s - run.reserve_s
    needed_s = REFIT_COST * sum(float(row["seconds"]) for row in to_kept)
    if not run.recipe.refit or state.stopped or left_s < needed_s:
        return run
    task.workspace.progress.info("refitting on training and validation images")
    try:
        with task.workspace.deadline.interruptible():
            refitted, _, _ = start_run(task, task.learning, None, _shorten(run.recipe, to_kept))
            finished = train(refitted)
    except OutOfTime:
        return run
    except TrainingError as error:
        notes.append(f"refitting on all images failed: {error} Keeping the model fitted on the training images.")
        return run
    task.watch.lap("refit")
    if finished.stopped or finished.epochs < len(to_kept):
        notes += [*finished.notes, "the refit on all images was not finished: keeping the model fitted on the training images"]
        return run
    return refitted


def _shorten(recipe: Recipe, curves: Sequence[Row]) -> Recipe:
    """``recipe`` with the epochs of ``curves`` only."""
    counts = Counter(str(row["phase"]) for row in curves)
    phases = (phase.model_copy(update={"epochs": counts[phase.name]}) for phase in recipe.phases if counts[phase.name])
    return recipe.model_copy(update={"phases": tuple(phases), "patience_epochs": None})


def _save(task: TrainingTask, learned: Learned) -> Fitted:
    """Write the model's files and collect what is known about it."""
    plan, labels = task.plan, learned.labels
    facts = BundleFacts(
        classes=task.classes,
        preprocessing=plan.preprocessing,
        backbone=plan.backbone,
        backbone_from=f"{task.backbone.plugin.distribution} {task.backbone.plugin.version}",
        same_network_as=task.backbone.card.same_network_as,
        strategy=plan.strategy,
        head=learned.head.shape,
        temperature=fit_temperature(learned.logits, labels, _weights(task, labels)) if len(labels) else 1.0,
    )
    classifier = Classifier(learned.encoder, learned.head.eval(), facts)
    encoder_file, head_file, digest = save_bundle(task.workspace.folder, classifier)
    task.watch.lap("saving")
    num_correct = int((learned.logits.argmax(axis=1) == labels).sum())
    result = FitResult(
        encoder_file=encoder_file,
        head_file=head_file,
        model_digest=digest,
        classes=task.classes,
        validation_accuracy=num_correct / len(labels) if len(labels) else None,
        validation_interval=wilson(num_correct, len(labels)) if len(labels) else None,
        curves=learned.curves,
        seconds=task.watch.seconds,
        notes=learned.notes,
    )
    return Fitted(
        result,
        classifier,
        task.prefix(learned.encoder, pretrained=not learned.runs),
        tuple(run.checkpoints for run in learned.runs if run.checkpoints),
        learned.evidence,
        learned_from=task.learning if learned.runs or learned.evidence is None else learned.evidence.images,
        held_out=(labels, softmax(learned.logits, facts.temperature)),
    )
