"""The one loop: carries out a recipe's phases.

Everything random in an epoch follows from the seed and the epoch's number, so a run that was cut off and goes on from its
checkpoint gives the same weights, bit for bit on a CPU, as one that was not. What did well on the validation images is kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automl_tl.errors import TrainingError
from automl_tl.evaluation import calibrated_losses
from automl_tl.models.engines import layout_on
from automl_tl.runtime.budget import OutOfTime
from automl_tl.runtime.threads import keep_freed_memory
from automl_tl.training.checkpoints import Checkpoint, Checkpoints
from automl_tl.training.images import LabeledImages
from automl_tl.training.phases import PhaseWork
from automl_tl.training.workspace import Workspace
from automl_tl.values import Preprocessing, Recipe

__all__ = ["Run", "RunState", "train"]

Row = dict[str, float | str]


@dataclass(frozen=True)
class Run:
    """What a training run starts from. ``blocks`` and ``head`` are changed in place."""

    blocks: nn.Sequential
    head: nn.Module
    recipe: Recipe
    preprocessing: Preprocessing
    train: LabeledImages
    validation: LabeledImages | None
    num_classes: int
    flips: bool
    seed: int
    workspace: Workspace
    checkpoints: Checkpoints | None = None
    reserve_s: float = 0.0  # of the budget, for what comes after training
    pause_after: int | None = None  # so many epochs, over all phases; a later run goes on from its checkpoint


@dataclass
class RunState:
    """How far a run is, and the weights ``kept`` so far. ``logits`` ``(N, C)`` are the validation images' under these."""

    curves: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    logits: NDArray[np.float32] | None = None
    stopped: bool = False
    paused: bool = False

    @property
    def epochs(self) -> int:
        """Epochs done, over all phases."""
        return len(self.curves)

    @property
    def best_epoch(self) -> int:
        """The one with the lowest log-loss on the validation images, counted from 1; the last where there are none."""
        losses = [row["validation_loss"] for row in self.curves if "validation_loss" in row]
        return 1 + losses.index(min(losses)) if losses else self.epochs

    @property
    def kept_epoch(self) -> int:
        """The last one that is no worse than the best by more than one standard error of its loss, counted from 1.

        The one-standard-error rule (Breiman and others, 1984), towards more training: on few images an early best is mostly
        luck, and a schedule that ended there would have taught too little (DECISIONS 38).
        """
        best = self.curves[self.best_epoch - 1]
        if "validation_loss" not in best:
            return self.epochs
        worst = float(best["validation_loss"]) + float(best["standard_error"])
        return max(number for number, row in enumerate(self.curves, start=1) if float(row["validation_loss"]) <= worst)


def train(run: Run) -> RunState:
    """Carry out every phase of the recipe; at the end ``run.blocks`` and ``run.head`` hold the weights of the kept epoch.

    Raises:
        TrainingError: the loss is no number any more, or memory doesn't suffice for one image.
    """
    keep_freed_memory()
    device = run.workspace.device
    network = nn.ModuleDict({"blocks": run.blocks, "head": run.head})
    # The layout is set here, not left to what ran before: another one is another order of summation.
    network.to(device=device, memory_format=layout_on(device))  # type: ignore[call-overload]
    state, start = RunState(), run.checkpoints.load() if run.checkpoints else None
    if start is not None:
        state = _taken_up(start, network)
        run.workspace.progress.info(f"going on from the checkpoint after epoch {state.epochs}")
    try:
        for number in range(start.phase if start else 0, len(run.recipe.phases)):
            if run.workspace.deadline.is_ended:
                state.stopped = True
            if not (state.stopped or state.paused):
                here = start if start is not None and number == start.phase else None
                work = PhaseWork(run, number, network, here)
                _Epochs(run, work, number, state).go_through(here.epochs_done if here else 0)
    except KeyboardInterrupt:
        run.workspace.deadline.end()
        _stop(state, f"interrupted by Ctrl-C after epoch {state.epochs}")
    except OutOfTime:
        _stop(state, f"the budget ended after epoch {state.epochs}")
    if state.kept:
        network.load_state_dict(state.kept)
    network.eval().cpu()
    return state


def _stop(state: RunState, why: str) -> None:
    state.notes.append(f"{why}: the best so far is kept" if state.kept else why)
    state.stopped = True


@dataclass
class _Epochs:
    """The epochs of one phase: fewer than planned if the budget doesn't last or nothing gets better."""

    run: Run
    work: PhaseWork
    number: int
    state: RunState
    saved_s: float = field(default_factory=time.monotonic)

    def go_through(self, done: int) -> None:
        """From after epoch ``done`` on."""
        epochs = self.work.phase.epochs
        self.state.paused = self._is_time_to_pause()
        with self.run.workspace.progress.track(self.work.phase.name, (epochs - done) * len(self.run.train)) as advance:
            while done < epochs and not self.state.paused:
                began_s = time.monotonic()
                loss = self.work.epoch(done, epochs, advance)
                done += 1
                self._book(loss, done, epochs, time.monotonic() - began_s)
                if self.work.is_cut:  # never saved: an epoch in a checkpoint is a whole one
                    self.state.notes.append(f"{self.work.phase.name}: the budget ended in epoch {done} of {epochs}")
                    self.state.stopped = True
                    break
                epochs = self._affordable(done, epochs, time.monotonic() - began_s)
                if self._is_flat(done):
                    self.state.notes.append(f"{self.work.phase.name}: stopped after epoch {done}, nothing got better")
                    epochs = done
                self.state.paused = self._is_time_to_pause()
                # A phase that ended early has ended: its rates have come down, and a later run must not raise them again.
                self._save(self.work.phase.epochs if done == epochs else done, last=done == epochs or self.state.paused)

    def _book(self, loss: float, done: int, epochs: int, seconds: float) -> None:
        """Add a row to the curves; keep the weights unless earlier ones did better on the validation images."""
        state, phase = self.state, self.work.phase.name
        row: Row = {"phase": phase, "epoch": state.epochs + 1, "loss": loss, "seconds": round(seconds, 3)}
        if self.run.validation is None:
            state.curves.append(row)
        else:
            logits = self.work.validate()
            if not np.isfinite(logits).all():
                raise TrainingError(
                    f"What the network says of the validation images is no number any more in phase {phase!r}. Lower its "
                    "learning rate, or choose another strategy."
                )
            row |= _judged(logits, self.run.validation.labels)
            state.curves.append(row)  # when it is whole: Ctrl-C may come at any time
            if state.epochs == (state.best_epoch if self.work.is_cut else state.kept_epoch):
                state.kept, state.logits = self.work.weights(), logits
        self.run.workspace.progress.info(_told(row, done, epochs, len(self.run.train) / seconds))

    def _affordable(self, done: int, epochs: int, epoch_s: float) -> int:
        """How many epochs the phase can have; the schedule then ends with the last of them."""
        left_s = self.run.workspace.deadline.left_s - self.run.reserve_s
        affordable = done + int(min(max(left_s / epoch_s, 0), epochs))
        if affordable >= epochs:
            return epochs
        self.state.notes.append(f"{self.work.phase.name}: {affordable} of {epochs} epochs, the budget ends")
        self.state.stopped = affordable == done
        return affordable

    def _is_time_to_pause(self) -> bool:
        return self.run.pause_after is not None and self.state.epochs >= self.run.pause_after

    def _is_flat(self, done: int) -> bool:
        patience = self.run.recipe.patience_epochs
        return patience is not None and min(done, self.state.epochs - self.state.best_epoch) >= patience

    def _save(self, done: int, *, last: bool) -> None:
        checkpoints = self.run.checkpoints
        if checkpoints is None or not (last or time.monotonic() - self.saved_s >= checkpoints.every_s):
            return
        state = self.state
        facts = {"curves": state.curves, "notes": state.notes}
        tensors = {**self.work.state(), "kept": state.kept}
        if state.logits is not None:
            tensors["logits"] = {"logits": torch.from_numpy(state.logits)}
        checkpoints.save(Checkpoint(self.number, done, facts, tensors))
        self.saved_s = time.monotonic()


def _judged(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Row:
    """What an epoch came to on the validation images; the loss is calibrated, as the model will be, with its standard error.

    As it comes, an epoch that is surer of the same answers looks worse or better than the one before it (DECISIONS 43).
    """
    losses = calibrated_losses(logits, labels)
    return {
        "validation_loss": float(losses.mean()),
        "standard_error": float(losses.std()) / len(losses) ** 0.5,
        "validation_accuracy": float((logits.argmax(axis=1) == labels).mean()),
    }


def _taken_up(checkpoint: Checkpoint, network: nn.Module) -> RunState:
    network.load_state_dict(checkpoint.tensors["network"])
    logits = checkpoint.tensors["logits"].get("logits")
    state = RunState(**checkpoint.facts)
    state.kept, state.logits = dict(checkpoint.tensors["kept"]), None if logits is None else logits.numpy()
    return state


def _told(row: Row, done: int, epochs: int, images_per_s: float) -> str:
    measured = f", validation {100 * float(row['validation_accuracy']):.1f}%" if "validation_accuracy" in row else ""
    return f"{row['phase']} {done}/{epochs}: loss {float(row['loss']):.3f}{measured}, {images_per_s:.0f} images/s"
