"""The training loop: carries out the phases of a run's recipe.

Everything random in an epoch follows from the seed and the epoch's number, so a run that was interrupted and resumed from its
checkpoint ends with the same weights, bit for bit on a CPU, as an uninterrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from math import cos, pi
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from automl_tl.errors import TrainingError
from automl_tl.evaluation import calibrated_losses
from automl_tl.models.engines import BATCH_SIZE, layout_on, precision_on
from automl_tl.runtime.budget import OutOfTime
from automl_tl.runtime.progress import Advance
from automl_tl.runtime.resources import is_out_of_memory
from automl_tl.runtime.threads import batches, keep_freed_memory
from automl_tl.training.checkpoints import Checkpoint, State
from automl_tl.training.distributed import Ranks, is_split, parameters_of
from automl_tl.training.run import BATCH_NORMS, Row, TrainingRun, TrainingState
from automl_tl.training.views import Prefix, make_inputs
from automl_tl.values import Phase, Recipe

# Images per forward pass on a CPU: as fast as 32, with the same gradient and half the memory (decision 26).
MICRO_BATCH_ON_CPU: Final = 16
ADVICE: Final = "Lower its learning rate, or choose another strategy."

NORM_LAYERS: Final = (*BATCH_NORMS, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LayerNorm, nn.GroupNorm)

# One-cycle as in fastai: up over 30% of the steps from 1/25, down to 1/100000 (Smith, arXiv 1803.09820).
ONE_CYCLE_WARMUP_FRACTION: Final = 0.3
ONE_CYCLE_START: Final = 1 / 25
ONE_CYCLE_END: Final = 1e-5


def train(run: TrainingRun) -> TrainingState:
    """Carry out every phase of the recipe; ``run.blocks`` and ``run.head`` then hold the weights of the kept epoch.

    Raises:
        TrainingError: the loss or the validation logits are not finite, one image does not fit in memory, or another process
            that trains ended.
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
        for row in state.curves:
            run.on_epoch(row)
    # 3) Train the remaining phases, until the budget ends or the user presses Ctrl-C.
    try:
        with run.workspace.deadline.interruptible(), Ranks.open(run) as ranks:
            for number in range(start.phase if start else 0, len(run.recipe.phases)):
                state.stopped = state.stopped or run.workspace.deadline.is_ended
                if not (state.stopped or _must_pause(run, state)):
                    resumed = start if start is not None and number == start.phase else None
                    trainer = PhaseTrainer(run, number, network, resumed, ranks)
                    _train_phase(run, trainer, state, resumed.epochs_done if resumed else 0)
    except OutOfTime:
        why = "interrupted by Ctrl-C" if run.workspace.deadline.is_ended else "the budget ended"
        note = f"{why} after epoch {state.epochs}"
        state.notes.append(f"{note}: keeping the best epoch so far" if state.kept_weights else note)
        state.stopped = True
    # 4) Go back to the weights of the kept epoch.
    if state.kept_weights:
        network.load_state_dict(state.kept_weights)
    network.eval().cpu()
    return state


def _train_phase(run: TrainingRun, trainer: PhaseTrainer, state: TrainingState, epochs_done: int) -> None:
    """Train a phase from after epoch ``epochs_done``: fewer epochs if the budget is short or the loss stops improving."""
    name, num_epochs, progress = trainer.phase.name, trainer.phase.epochs, run.workspace.progress
    with progress.track(name, (num_epochs - epochs_done) * len(run.train)) as advance:
        while epochs_done < num_epochs and not _must_pause(run, state):
            # 1) Train and validate.
            started_s = time.monotonic()
            loss = trainer.train_epoch(epochs_done, num_epochs, advance)
            epochs_done += 1
            training_s = time.monotonic() - started_s
            row = _record_epoch(run, trainer, state, loss, training_s)
            run.on_epoch(row)
            accuracy = f", validation accuracy {float(row['validation_accuracy']):.1%}" if run.validation is not None else ""
            speed = f"{len(run.train) / training_s:.0f} images/s"
            progress.info(f"{name} {epochs_done}/{num_epochs}: loss {loss:.3f}{accuracy}, {speed}")
            # 2) Stop after an incomplete epoch. It is never saved: checkpoints hold whole epochs only.
            if trainer.is_cut:
                state.notes.append(f"{name}: the budget ended in epoch {epochs_done} of {num_epochs}")
                state.stopped = True
                break
            # 3) Shorten the phase to the epochs that the budget allows; the schedule then ends with the last of them.
            left_s = run.workspace.deadline.left_s - run.reserve_s
            affordable = epochs_done + int(min(max(left_s / (time.monotonic() - started_s), 0), num_epochs))
            if affordable < num_epochs:
                state.notes.append(f"{name}: the budget ends after {affordable} of {num_epochs} epochs")
                state.stopped = affordable == epochs_done
                num_epochs = affordable
            # 4) Stop early without improvement.
            patience = run.recipe.patience_epochs
            if patience is not None and min(epochs_done, state.epochs - state.best_epoch) >= patience:
                state.notes.append(f"{name}: stopped after epoch {epochs_done}, validation loss no longer improves")
                num_epochs = epochs_done
            # 5) Save. A phase that ended early counts as complete: its learning rates must not rise again on resuming.
            is_last = epochs_done == num_epochs
            if run.checkpoints is not None and (is_last or _must_pause(run, state) or run.checkpoints.is_due):
                run.checkpoints.save(_snapshot(trainer, state, trainer.phase.epochs if is_last else epochs_done))


def _must_pause(run: TrainingRun, state: TrainingState) -> bool:
    return run.pause_after is not None and state.epochs >= run.pause_after


def _record_epoch(run: TrainingRun, trainer: PhaseTrainer, state: TrainingState, loss: float, seconds: float) -> Row:
    """Validate, add a row to the curves and return it; keep the weights if it is the epoch to keep."""
    row: Row = {"phase": trainer.phase.name, "epoch": state.epochs + 1, "loss": loss, "seconds": round(seconds, 3)}
    if run.validation is None:
        state.curves.append(row)
        return row
    logits = trainer.validation_logits()
    if not np.isfinite(logits).all():
        raise TrainingError(f"Validation logits are NaN or infinite in phase {trainer.phase.name!r}. {ADVICE}")
    weights = None if run.class_weights is None else run.class_weights[run.validation.labels]
    row = row | validation_row(logits, run.validation.labels, weights)
    state.curves.append(row)  # only once it is complete: Ctrl-C may come at any time
    if state.epochs == (state.best_epoch if trainer.is_cut else state.kept_epoch):
        state.kept_weights, state.logits = trainer.weights(), logits
    return row


def validation_row(logits: NDArray[np.float32], labels: NDArray[np.int64], weights: NDArray[np.float64] | None = None) -> Row:
    """Return log-loss at the best temperature, its standard error, and accuracy, as columns of the learning curves.

    The model will be calibrated, so a mere change of confidence does not count as an improvement (decision 43).

    Args:
        logits: ``(N, C)`` of the validation images.
        labels: ``(N,)`` class indices.
        weights: ``(N,)``, how much each image counts in the loss; ``None``: all alike.
    """
    losses = calibrated_losses(logits, labels, weights)
    return {
        "validation_loss": float(losses.mean()),
        "standard_error": float(losses.std()) / len(losses) ** 0.5,
        "validation_accuracy": float((logits.argmax(axis=1) == labels).mean()),
    }


def _snapshot(trainer: PhaseTrainer, state: TrainingState, epochs_done: int) -> Checkpoint:
    network, optimizer = dict(trainer.network.state_dict()), _flat_optimizer_state(trainer.optimizer)
    tensors = {"network": network, "optimizer": optimizer, "kept": state.kept_weights}
    if state.logits is not None:
        tensors["logits"] = {"logits": torch.from_numpy(state.logits)}
    return Checkpoint(trainer.number, epochs_done, {"curves": state.curves, "notes": state.notes}, tensors)


def _restore(checkpoint: Checkpoint, network: nn.Module) -> TrainingState:
    network.load_state_dict(checkpoint.tensors["network"])
    logits = checkpoint.tensors["logits"].get("logits")
    kept = dict(checkpoint.tensors["kept"])
    return TrainingState(**checkpoint.facts, kept_weights=kept, logits=None if logits is None else logits.numpy())


def _flat_optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """Tensors of the optimizer's state, by ``index.name``."""
    return {
        f"{index}.{name}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }


def _load_optimizer_state(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Restore a state from ``_flat_optimizer_state``."""
    state: dict[int, State] = {}
    for key, value in flat.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


class PhaseTrainer:
    """Trains one phase of a run, epoch by epoch, and changes the run's network in place."""

    def __init__(
        self,
        run: TrainingRun,
        number: int,
        network: nn.ModuleDict,
        start: Checkpoint | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """Start a phase.

        Args:
            run: whose recipe has the phase.
            number: index of the phase.
            network: blocks and head, on their device.
            start: checkpoint to resume from.
            ranks: the other processes, if there are any.
        """
        self.phase: Phase = run.recipe.phases[number]
        self.number, self.is_cut = number, False  # is_cut: the budget ended inside the last epoch
        self._run, self.network, self._device = run, network, run.workspace.device
        self._first_epoch = sum(phase.epochs for phase in run.recipe.phases[:number])
        self._micro_batch = run.recipe.batch_size
        if self._device.type == "cpu" and self.phase.batch_norm == "frozen":
            self._micro_batch = min(self._micro_batch, MICRO_BATCH_ON_CPU)
        # 1) Blocks in front of the first trained one are frozen: their activations are the inputs. If an earlier phase
        #    changed these blocks, the activations are cached for this command only.
        boundary = min(self.phase.train_blocks, default=len(run.blocks))
        changed = {index for phase in run.recipe.phases[:number] for index in phase.train_blocks if index < boundary}
        cache = run.workspace.cache if run.recipe.pretrained and not changed else run.workspace.scratch
        cache = cache.within(run.workspace.deadline, reserve_s=run.reserve_s)
        prefix = Prefix(run.blocks[:boundary], run.preprocessing, cache, gives_features=boundary == len(run.blocks))
        self.inputs = make_inputs(prefix, run.train, phase=self.phase, flips=run.flips, seed=run.seed, device=self._device)
        self._validation = None if run.validation is None else prefix.plain(run.validation)
        # 2) The rest of the network runs in every step.
        self._tail = nn.Sequential(*run.blocks[boundary:], run.head).to(self._device)
        self.optimizer = make_optimizer(run.blocks, run.head, self.phase, run.recipe)
        if start is not None:
            _load_optimizer_state(self.optimizer, start.tensors["optimizer"])
        # 3) The other processes, which find everything in the caches by now.
        self.ranks = ranks if is_split(self.phase, run.blocks) else None
        if self.ranks is not None:
            self.ranks.start_phase(number, _flat_optimizer_state(self.optimizer))

    def train_epoch(self, epoch: int, num_epochs: int, advance: Advance) -> float:
        """Train on every image once, or until the budget ends, and return the mean loss.

        Args:
            epoch: index in the phase, from 0.
            num_epochs: of the phase; the schedule ends with the last of them.
            advance: receives the number of images of each step.

        Raises:
            TrainingError: the loss is not finite, or one image does not fit in memory.
        """
        # 1) Everything random follows from seed, phase and epoch, so that a resumed run repeats it.
        rng = np.random.default_rng([self._run.seed, self.number, epoch])
        order = rng.permutation(len(self._run.train))
        if self.ranks is not None:
            self.ranks.start_epoch(epoch)
        self.start_epoch(epoch)
        # 2) Batches of nearly equal size, about ``batch_size`` each.
        steps = np.array_split(order, max(1, round(len(order) / self._run.recipe.batch_size)))
        num_images, loss = 0, 0.0
        for step, positions in enumerate(steps):
            # 3) Learning rates follow the schedule step by step.
            factor = lr_factor(self.phase, (epoch * len(steps) + step) / (num_epochs * len(steps)))
            loss += self._step(positions, self._first_epoch + epoch, factor) * len(positions)
            num_images += len(positions)
            advance(len(positions))
            # 4) Stop where the budget ends; the caller decides what becomes of the incomplete epoch.
            if self._run.workspace.deadline.left_s <= self._run.reserve_s:
                self.is_cut = step < len(steps) - 1
                break
        return loss / num_images

    def start_epoch(self, epoch: int, *, rank: int = 0) -> None:
        """Seed what is random in the network, and set the training mode.

        Args:
            epoch: index in the phase.
            rank: of this process; each one drops other units.
        """
        seed = [self._run.seed, self.number, epoch, 1, *([rank] if rank else [])]
        torch.manual_seed(int(np.random.default_rng(seed).integers(2**63)))
        _set_training_mode(self._run.blocks, self._run.head, self.phase)

    def _step(self, positions: NDArray[np.int64], view: int, factor: float) -> float:
        """Take one optimizer step, together with the other processes, and return the batch's mean loss."""
        own = positions if self.ranks is None else self.ranks.share(positions, view, factor)
        loss = self.gradient(own, view, num_images=len(positions))
        if self.ranks is not None:
            loss += self.ranks.losses()
        if not np.isfinite(loss):
            raise TrainingError(f"The loss became {loss} in phase {self.phase.name!r}. {ADVICE}")
        if self.ranks is not None:
            self.ranks.add_gradients(parameters_of(self.optimizer))
        self.update(factor)
        return loss

    def gradient(self, positions: NDArray[np.int64], view: int, *, num_images: int) -> float:
        """Compute a share of a batch's gradient; if memory runs out, halve the micro-batch and repeat with the same gradient.

        Args:
            positions: of the images.
            view: of the images.
            num_images: of the whole batch.

        Returns:
            The share of the batch's mean loss.
        """
        while True:
            try:
                return self._accumulate_gradient(positions, view, num_images)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve_micro_batch(error)

    def update(self, factor: float) -> None:
        """Take an optimizer step with the gradient, at ``factor`` times the peak learning rates."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        if self._run.recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._tail.parameters(), self._run.recipe.gradient_clip)
        self.optimizer.step()

    def _accumulate_gradient(self, positions: NDArray[np.int64], view: int, num_images: int) -> float:
        """Sum the gradient over micro-batches and return the images' share of the batch's mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        total, is_bf16 = 0.0, precision_on(self._device) == torch.bfloat16
        num_parts = -(-len(positions) // self._micro_batch)
        for micro_batch in np.array_split(positions, num_parts) if num_parts else ():
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=is_bf16):
                loss = self._loss(micro_batch, view) * (len(micro_batch) / num_images)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _loss(self, positions: NDArray[np.int64], view: int) -> Tensor:
        inputs, smoothing = self.inputs(positions, view), self._run.recipe.label_smoothing
        labels = torch.from_numpy(self._run.train.labels[positions]).to(inputs.device)
        targets = functional.one_hot(labels, self._run.num_classes).float()
        return functional.cross_entropy(self._tail(inputs), targets, label_smoothing=smoothing)

    def _halve_micro_batch(self, error: BaseException) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self._micro_batch == 1:
            raise TrainingError(
                "Not enough memory to train on a single image. Choose a smaller backbone or the strategy `linear_probe`."
            ) from error
        self._micro_batch = -(-self._micro_batch // 2)
        if self._device.type != "cpu":
            torch.get_device_module(self._device).empty_cache()
        self._run.workspace.progress.warn(
            f"out of memory: continuing with {self._micro_batch} images per forward pass; the gradient is the same"
        )

    @torch.no_grad()
    def validation_logits(self) -> NDArray[np.float32]:
        """Logits ``(N, C)`` of the validation images under the current weights."""
        assert self._validation is not None
        self._tail.eval()
        logits = []
        for positions in batches(range(len(self._validation)), BATCH_SIZE):
            rows = torch.from_numpy(self._validation.at(positions)).to(self._device)
            logits.append(self._tail(rows.float()).float().cpu())
        return np.asarray(torch.cat(logits).numpy())

    def weights(self) -> dict[str, Tensor]:
        """Copies of the network's tensors, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}


def _select_parameters(blocks: nn.Sequential, head: nn.Module, phase: Phase) -> None:
    """Enable gradients for exactly the parameters of ``blocks`` and ``head`` that ``phase`` trains."""
    blocks.requires_grad_(False)
    for block in (blocks[index] for index in phase.train_blocks):
        if phase.parameters == "all":
            block.requires_grad_(True)
            continue
        for norm in (module for module in block.modules() if isinstance(module, NORM_LAYERS)):
            for parameter in norm.parameters(recurse=False):
                parameter.requires_grad_(True)
    head.requires_grad_(True)


def _set_training_mode(blocks: nn.Sequential, head: nn.Module, phase: Phase) -> None:
    """Put trained blocks and head in training mode, everything else and frozen batch norm in evaluation mode."""
    blocks.eval()
    head.train()
    for index in phase.train_blocks:
        blocks[index].train()
        if phase.batch_norm == "frozen":
            for module in blocks[index].modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()


def make_optimizer(blocks: nn.Sequential, head: nn.Module, phase: Phase, recipe: Recipe) -> torch.optim.Optimizer:
    """Enable gradients for what ``phase`` trains, and return AdamW over it, with the peak learning rates as ``base_lr``.

    Args:
        blocks: of the encoder; each trained one has its own learning rate.
        head: always trained, with a learning rate of its own.
        phase: names the blocks and gives the learning rates.
        recipe: gives the weight decay.
    """
    _select_parameters(blocks, head, phase)
    top = len(blocks) - 1
    factors = phase.block_factors or tuple(phase.block_decay ** (top - index) for index in phase.train_blocks)
    groups = list(_parameter_groups(head, phase.head_lr, recipe.weight_decay))
    for index, factor in zip(phase.train_blocks, factors, strict=True):
        groups += _parameter_groups(blocks[index], phase.encoder_lr * factor, recipe.weight_decay)
    return torch.optim.AdamW(groups, lr=phase.head_lr)


def _parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> Iterator[dict[str, Any]]:
    """Apply weight decay to matrices and kernels, not to biases and norm layers (one dimension)."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for is_matrix, decay in ((True, weight_decay), (False, 0.0)):
        if parameters := [parameter for parameter in trainable if (parameter.ndim > 1) == is_matrix]:
            yield {"params": parameters, "lr": lr, "base_lr": lr, "weight_decay": decay}


def lr_factor(phase: Phase, progress: float) -> float:
    """Return the factor on every peak learning rate, 0 to 1.

    Args:
        phase: gives the schedule.
        progress: finished share of the phase's steps, 0 to 1.
    """
    if phase.schedule == "one_cycle":
        if progress < ONE_CYCLE_WARMUP_FRACTION:
            return _cosine(ONE_CYCLE_START, 1.0, progress / ONE_CYCLE_WARMUP_FRACTION)
        return _cosine(1.0, ONE_CYCLE_END, (progress - ONE_CYCLE_WARMUP_FRACTION) / (1 - ONE_CYCLE_WARMUP_FRACTION))
    if progress < phase.warmup_fraction:
        return max(progress / phase.warmup_fraction, 1e-3)
    return _cosine(1.0, 0.0, (progress - phase.warmup_fraction) / max(1 - phase.warmup_fraction, 1e-9))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + cos(pi * min(progress, 1.0))) / 2
