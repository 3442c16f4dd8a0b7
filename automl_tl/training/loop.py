"""The training loop: carries out the phases of a run's recipe.

Everything random in an epoch follows from the seed and the epoch's number, so a run that was interrupted and resumed from its
checkpoint ends with the same weights, bit for bit on a CPU, as an uninterrupted one. The epoch to keep is chosen by the
validation images.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.errors import TrainingError
from automl_tl.evaluation import calibrated_losses
from automl_tl.models.engines import layout_on
from automl_tl.runtime.budget import OutOfTime
from automl_tl.runtime.threads import keep_freed_memory
from automl_tl.training.checkpoints import Checkpoint
from automl_tl.training.phase import PhaseTrainer
from automl_tl.training.run import Row, TrainingRun, TrainingState

__all__ = ["train", "validation_row"]


def train(run: TrainingRun) -> TrainingState:
    """Carry out every phase of the recipe; ``run.blocks`` and ``run.head`` then hold the weights of the kept epoch.

    Raises:
        TrainingError: the loss or the validation logits are not finite, or one image does not fit in memory.
    """
    keep_freed_memory()
    device = run.workspace.device
    network = nn.ModuleDict({"blocks": run.blocks, "head": run.head})
    # 1) Set the memory layout explicitly: another layout sums in another order, so the weights would differ.
    network.to(device=device, memory_format=layout_on(device))  # type: ignore[call-overload]
    # 2) Resume from the checkpoint, if there is one.
    state, start = TrainingState(), run.checkpoints.load() if run.checkpoints else None
    if start is not None:
        state = _restore(start, network)
        run.workspace.progress.info(f"resuming from the checkpoint after epoch {state.epochs}")
    # 3) Train the remaining phases, until the budget ends or the user presses Ctrl-C.
    try:
        with run.workspace.interruptible():
            for number in range(start.phase if start else 0, len(run.recipe.phases)):
                if run.workspace.deadline.is_ended:
                    state.stopped = True
                if not (state.stopped or state.paused):
                    resumed = start if start is not None and number == start.phase else None
                    trainer = PhaseTrainer(run, number, network, resumed)
                    _train_phase(run, trainer, number, state, resumed.epochs_done if resumed else 0)
    except OutOfTime:
        why = "interrupted by Ctrl-C" if run.workspace.deadline.is_ended else "the budget ended"
        note = f"{why} after epoch {state.epochs}"
        state.notes.append(f"{note}: keeping the best epoch so far" if state.kept else note)
        state.stopped = True
    # 4) Go back to the weights of the kept epoch.
    if state.kept:
        network.load_state_dict(state.kept)
    network.eval().cpu()
    return state


def _train_phase(run: TrainingRun, trainer: PhaseTrainer, number: int, state: TrainingState, epochs_done: int) -> None:
    """Train a phase from after epoch ``epochs_done``: fewer epochs if the budget is short or the loss stops improving."""
    name, num_epochs = trainer.phase.name, trainer.phase.epochs
    state.paused = _must_pause(run, state)
    with run.workspace.progress.track(name, (num_epochs - epochs_done) * len(run.train)) as advance:
        while epochs_done < num_epochs and not state.paused:
            # 1) Train and validate.
            started_s = time.monotonic()
            loss = trainer.train_epoch(epochs_done, num_epochs, advance)
            epochs_done += 1
            row: Row = {
                "phase": name,
                "epoch": state.epochs + 1,
                "loss": loss,
                "seconds": round(time.monotonic() - started_s, 3),
            }
            images_per_s = len(run.train) / (time.monotonic() - started_s)
            row = _record_epoch(run, trainer, state, row)
            run.workspace.progress.info(_epoch_summary(row, epochs_done, num_epochs, images_per_s))
            # 2) Stop after an incomplete epoch. It is never saved: checkpoints hold whole epochs only.
            if trainer.is_cut:
                state.notes.append(f"{name}: the budget ended in epoch {epochs_done} of {num_epochs}")
                state.stopped = True
                break
            # 3) Shorten the phase to the epochs that the budget allows; the schedule then ends with the last of them.
            num_epochs = _affordable_epochs(run, state, name, epochs_done, num_epochs, time.monotonic() - started_s)
            # 4) Stop early without improvement.
            if _has_plateaued(run, state, epochs_done):
                state.notes.append(f"{name}: stopped after epoch {epochs_done}, validation loss no longer improves")
                num_epochs = epochs_done
            # 5) Save. A phase that ended early counts as complete: its learning rates must not rise again on resuming.
            state.paused = _must_pause(run, state)
            is_last = epochs_done == num_epochs
            saved_epochs = trainer.phase.epochs if is_last else epochs_done
            if run.checkpoints is not None and (is_last or state.paused or run.checkpoints.is_due):
                run.checkpoints.save(_snapshot(trainer, number, state, saved_epochs))


def _record_epoch(run: TrainingRun, trainer: PhaseTrainer, state: TrainingState, row: Row) -> Row:
    """Complete ``row`` by the validation, add it to the curves, and keep the weights if it is the epoch to keep.

    Raises:
        TrainingError: the validation logits are not finite.
    """
    if run.validation is None:
        state.curves.append(row)
        return row
    logits = trainer.validation_logits()
    if not np.isfinite(logits).all():
        raise TrainingError(
            f"Validation logits are NaN or infinite in phase {trainer.phase.name!r}. Lower its learning rate, or choose "
            "another strategy."
        )
    row = row | validation_row(logits, run.validation.labels)
    state.curves.append(row)  # only once it is complete: Ctrl-C may come at any time
    if state.epochs == (state.best_epoch if trainer.is_cut else state.kept_epoch):
        state.kept, state.logits = trainer.weights(), logits
    return row


def validation_row(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Row:
    """Log-loss at the best temperature, its standard error, and accuracy.

    The model will be calibrated, so epochs are compared after calibration: a mere change of confidence is no improvement
    (decision 43).

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)`` class indices.
    """
    losses = calibrated_losses(logits, labels)
    return {
        "validation_loss": float(losses.mean()),
        "standard_error": float(losses.std()) / len(losses) ** 0.5,
        "validation_accuracy": float((logits.argmax(axis=1) == labels).mean()),
    }


def _affordable_epochs(
    run: TrainingRun, state: TrainingState, name: str, epochs_done: int, num_epochs: int, epoch_s: float
) -> int:
    """Number of epochs that the phase has time for when one takes ``epoch_s`` seconds."""
    left_s = run.workspace.deadline.left_s - run.reserve_s
    affordable = epochs_done + int(min(max(left_s / epoch_s, 0), num_epochs))
    if affordable >= num_epochs:
        return num_epochs
    state.notes.append(f"{name}: the budget ends after {affordable} of {num_epochs} epochs")
    state.stopped = affordable == epochs_done
    return affordable


def _must_pause(run: TrainingRun, state: TrainingState) -> bool:
    return run.pause_after is not None and state.epochs >= run.pause_after


def _has_plateaued(run: TrainingRun, state: TrainingState, epochs_done: int) -> bool:
    patience = run.recipe.patience_epochs
    return patience is not None and min(epochs_done, state.epochs - state.best_epoch) >= patience


def _snapshot(trainer: PhaseTrainer, number: int, state: TrainingState, epochs_done: int) -> Checkpoint:
    tensors = {**trainer.state(), "kept": state.kept}
    if state.logits is not None:
        tensors["logits"] = {"logits": torch.from_numpy(state.logits)}
    return Checkpoint(number, epochs_done, {"curves": state.curves, "notes": state.notes}, tensors)


def _restore(checkpoint: Checkpoint, network: nn.Module) -> TrainingState:
    network.load_state_dict(checkpoint.tensors["network"])
    logits = checkpoint.tensors["logits"].get("logits")
    return TrainingState(
        **checkpoint.facts,
        kept=dict(checkpoint.tensors["kept"]),
        logits=None if logits is None else logits.numpy(),
    )


def _epoch_summary(row: Row, epochs_done: int, num_epochs: int, images_per_s: float) -> str:
    validation = f", validation accuracy {float(row['validation_accuracy']):.1%}" if "validation_accuracy" in row else ""
    return f"{row['phase']} {epochs_done}/{num_epochs}: loss {float(row['loss']):.3f}{validation}, {images_per_s:.0f} images/s"
