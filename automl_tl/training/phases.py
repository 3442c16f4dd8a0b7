"""One phase at work: its inputs, its optimizer, an epoch, a validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from automl_tl.errors import TrainingError
from automl_tl.models.features import BATCH_SIZE
from automl_tl.training.checkpoints import Checkpoint, flat_optimizer_state, load_optimizer_state
from automl_tl.training.inputs import Prefix, augmented
from automl_tl.training.optimization import lr_factor, make_optimizer, select_parameters, set_training_mode
from automl_tl.values import Phase

if TYPE_CHECKING:
    from automl_tl.runtime.progress import Advance
    from automl_tl.training.trainer import Run

__all__ = ["AT_ONCE_ON_CPU", "PhaseWork"]

AT_ONCE_ON_CPU: Final = 16  # images per pass: as quick as 32, the gradient is the same, and half the memory (DECISIONS 26)
OUT_OF_MEMORY_WORDS: Final = ("can't allocate memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means that memory ran out; CPU and MPS allocators raise a plain ``RuntimeError``."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY_WORDS)


class PhaseWork:
    """A phase of a run, ready to go through its epochs. Changes the run's network in place."""

    def __init__(self, run: Run, number: int, network: nn.ModuleDict, start: Checkpoint | None = None) -> None:
        """``start`` is a checkpoint of this phase, the network of which was taken over before."""
        self.phase: Phase = run.recipe.phases[number]
        self._run, self._number, self._network = run, number, network
        self._device = run.workspace.device
        self._first_epoch = sum(phase.epochs for phase in run.recipe.phases[:number])
        self.is_cut = False
        self._micro_batch = run.recipe.batch_size
        if self._device.type == "cpu" and self.phase.batch_norm == "frozen":
            self._micro_batch = min(self._micro_batch, AT_ONCE_ON_CPU)
        boundary = min(self.phase.train_blocks, default=len(run.blocks))
        self._prefix = self._make_prefix(boundary)
        self._inputs = augmented(self._prefix, run.train, phase=self.phase, flips=run.flips, seed=run.seed, device=self._device)
        self._validation = None if run.validation is None else self._prefix.plain(run.validation)
        self._tail = nn.Sequential(*run.blocks[boundary:], run.head).to(self._device)
        select_parameters(run.blocks, run.head, self.phase)
        self.optimizer = make_optimizer(run.blocks, run.head, self.phase, run.recipe)
        if start is not None:
            load_optimizer_state(self.optimizer, start.tensors["optimizer"])

    def _make_prefix(self, boundary: int) -> Prefix:
        """The frozen part; what earlier phases changed is of no use to other runs and is cached in the run's own folder."""
        run = self._run
        earlier = {index for phase in run.recipe.phases[: self._number] for index in phase.train_blocks}
        untouched = run.recipe.pretrained and not any(index < boundary for index in earlier)
        cache = (run.workspace.cache if untouched else run.workspace.scratch).within(
            run.workspace.deadline, reserve_s=run.reserve_s
        )
        return Prefix(run.blocks[:boundary], run.preprocessing, cache, gives_features=boundary == len(run.blocks))

    # ------------------------------------------------------------------------------------------------------ an epoch

    def epoch(self, epoch: int, epochs: int, advance: Advance) -> float:
        """Go through the training images once; gives the mean loss. ``epoch`` of ``epochs``, counted from 0.

        An epoch ends where the budget ends; ``is_cut`` tells.

        Raises:
            TrainingError: the loss is not a number, or memory doesn't suffice for one image.
        """
        order, total, loss = self._order(epoch), 0, 0.0
        torch.manual_seed(int(np.random.default_rng([self._run.seed, self._number, epoch, 1]).integers(2**63)))
        batches = np.array_split(order, max(1, round(len(order) / self._run.recipe.batch_size)))
        set_training_mode(self._run.blocks, self._run.head, self.phase)
        for step, positions in enumerate(batches):
            self._set_rates((epoch * len(batches) + step) / (epochs * len(batches)))
            loss += self._step(positions, self._first_epoch + epoch) * len(positions)
            total += len(positions)
            advance(len(positions))
            if self._run.workspace.deadline.left_s <= self._run.reserve_s:
                self.is_cut = step < len(batches) - 1
                break
        return loss / total

    def _order(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self._run.seed, self._number, epoch])
        return rng.permutation(len(self._run.train))

    def _set_rates(self, done: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * lr_factor(self.phase, done)

    def _step(self, positions: NDArray[np.int64], view: int) -> float:
        """One step of the optimizer; when memory runs out the batch is worked off in smaller pieces, with the same gradient."""
        while True:
            try:
                loss = self._gradient(positions, view)
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)
        if not np.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} in phase {self.phase.name!r}. Lower its learning rate, or choose another strategy."
            )
        if self._run.recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._tail.parameters(), self._run.recipe.gradient_clip)
        self.optimizer.step()
        return loss

    def _gradient(self, positions: NDArray[np.int64], view: int) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        total, is_bf16 = 0.0, torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        for piece in np.array_split(positions, -(-len(positions) // self._micro_batch)):
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._device.type == "cuda" and is_bf16):
                loss = self._loss(piece, view) * (len(piece) / len(positions))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _loss(self, positions: NDArray[np.int64], view: int) -> Tensor:
        run = self._run
        inputs = self._inputs.batch(positions, view)
        labels = torch.from_numpy(run.train.labels[positions]).to(inputs.device)
        targets = functional.one_hot(labels, run.num_classes).float()
        return functional.cross_entropy(self._tail(inputs), targets, label_smoothing=run.recipe.label_smoothing)

    def _halve(self, error: BaseException) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self._micro_batch == 1:
            raise TrainingError(
                "Memory does not suffice for one image. Choose a smaller backbone or `linear_probe`."
            ) from error
        self._micro_batch = -(-self._micro_batch // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._run.workspace.progress.warn(
            f"out of memory: going on with {self._micro_batch} images at a time, the result is the same"
        )

    # -------------------------------------------------------------------------------------------------- a validation

    @torch.no_grad()
    def validate(self) -> NDArray[np.float32]:
        """Logits ``(N, C)`` of the validation images."""
        assert self._validation is not None
        self._tail.eval()
        rows = [torch.from_numpy(self._validation.at(few)).to(self._device).float() for few in self._chunks()]
        result: NDArray[np.float32] = torch.cat([self._tail(few).float().cpu() for few in rows]).numpy()
        return result

    def _chunks(self) -> Iterator[Sequence[int]]:
        assert self._validation is not None
        for start in range(0, len(self._validation), BATCH_SIZE):
            yield range(start, min(start + BATCH_SIZE, len(self._validation)))

    def weights(self) -> dict[str, Tensor]:
        """The network's tensors, copied to the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self._network.state_dict().items()}

    # -------------------------------------------------------------------------------------------------- a checkpoint

    def state(self) -> dict[str, dict[str, Tensor]]:
        """All tensors that the rest of the phase depends on."""
        return {"network": dict(self._network.state_dict()), "optimizer": flat_optimizer_state(self.optimizer)}
