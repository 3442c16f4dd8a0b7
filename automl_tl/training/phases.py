"""One phase at work: its inputs, its optimizer, an epoch, a validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from automl_tl.errors import TrainingError
from automl_tl.models.features import BATCH_SIZE
from automl_tl.training.checkpoints import Checkpoint, flat_optimizer_state, load_optimizer_state
from automl_tl.training.inputs import Prefix, augmented
from automl_tl.training.parts import learning_mode, optimizer_for, select_parameters
from automl_tl.training.rates import find_rate
from automl_tl.training.schedules import rate_factor
from automl_tl.values import Phase

if TYPE_CHECKING:
    from accelerate import Accelerator

    from automl_tl.runtime.progress import Advance
    from automl_tl.training.trainer import Run

__all__ = ["AT_ONCE_ON_CPU", "PhaseWork"]

AT_ONCE_ON_CPU: Final = 16  # images per pass: as quick as 32, the gradient is the same, and half the memory (DECISIONS 26)
EMA_DECAY: Final = 0.98  # about the last 50 steps: runs on small data have a few hundred (planner notes, section 4)


class PhaseWork:
    """A phase of a run, ready to go through its epochs. Changes the run's network in place."""

    def __init__(
        self, run: Run, number: int, accelerator: Accelerator, network: nn.ModuleDict, start: Checkpoint | None = None
    ) -> None:
        """``start`` is a checkpoint of this phase, the network of which was taken over before."""
        self.phase: Phase = run.recipe.phases[number]
        self._run, self._number, self._accelerator, self._network = run, number, accelerator, network
        self._first_epoch = sum(phase.epochs for phase in run.recipe.phases[:number])
        self.is_cut = False
        self._micro_batch = run.recipe.batch_size
        if accelerator.device.type == "cpu" and self.phase.batch_norm == "frozen":
            self._micro_batch = min(self._micro_batch, AT_ONCE_ON_CPU)
        self._average: AveragedModel | None = None
        boundary = min(self.phase.train_blocks, default=len(run.blocks))
        self._prefix = self._make_prefix(boundary)
        self._inputs = augmented(
            self._prefix, run.train, phase=self.phase, flips=run.flips, seed=run.seed, device=accelerator.device
        )
        self._validation = None if run.validation is None else self._prefix.plain(run.validation)
        self._tail = nn.Sequential(*run.blocks[boundary:], run.head).to(accelerator.device)
        select_parameters(run.blocks, run.head, self.phase)
        self._weights = _class_weights(run).to(accelerator.device)
        found = None if start is None else float(start.tensors["rates"]["head"])
        self._head_lr = self.phase.head_lr or found or self._find_head_rate()
        self.optimizer = optimizer_for(run.blocks, run.head, self.phase, run.recipe, head_lr=self._head_lr)
        if run.recipe.averaging == "ema":
            averaging = get_ema_multi_avg_fn(EMA_DECAY)  # type: ignore[no-untyped-call]
            self._average = AveragedModel(self._tail, multi_avg_fn=averaging, use_buffers=True)
        if start is not None:
            self._go_on(start)

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
        learning_mode(self._run.blocks, self._run.head, self.phase)
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
            group["lr"] = group["base_lr"] * rate_factor(self.phase, done)

    def _step(self, positions: NDArray[np.int64], view: int) -> float:
        """One step of the optimizer; when memory runs out the batch is worked off in smaller pieces, with the same gradient."""
        while True:
            try:
                loss = self._gradient(positions, view)
                break
            except (torch.OutOfMemoryError, MemoryError) as error:
                self._halve(error)
        if not np.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} in phase {self.phase.name!r}. Lower its learning rate, or choose another strategy."
            )
        if self._run.recipe.gradient_clip is not None:
            self._accelerator.clip_grad_norm_(self._tail.parameters(), self._run.recipe.gradient_clip)
        self.optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self._tail)
        return loss

    def _gradient(self, positions: NDArray[np.int64], view: int) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for piece in np.array_split(positions, -(-len(positions) // self._micro_batch)):
            with self._accelerator.autocast():
                loss = self._loss(piece, view) * (len(piece) / len(positions))
            self._accelerator.backward(loss)
            total += float(loss.detach())
        return total

    def _loss(self, positions: NDArray[np.int64], view: int) -> Tensor:
        run = self._run
        inputs = self._inputs.batch(positions, view)
        labels = torch.from_numpy(run.train.labels[positions]).to(inputs.device)
        targets = functional.one_hot(labels, run.num_classes).float()
        if run.recipe.mixup_alpha > 0:  # at the boundary: manifold mixup, arXiv 1806.05236
            rng = np.random.default_rng([run.seed, view, int(positions[0])])
            share = float(rng.beta(run.recipe.mixup_alpha, run.recipe.mixup_alpha))
            inputs, targets = (share * each + (1 - share) * each.flip(0) for each in (inputs, targets))
        logits = self._tail(inputs)
        return functional.cross_entropy(logits, targets, self._weights, label_smoothing=run.recipe.label_smoothing)

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

    def _find_head_rate(self) -> float:
        """Range test on the head's own rate; the weights are put back."""
        run = self._run
        before = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
        self.optimizer = optimizer_for(run.blocks, run.head, self.phase, run.recipe, head_lr=1.0)
        shares = [(group, group["base_lr"]) for group in self.optimizer.param_groups]
        learning_mode(run.blocks, run.head, self.phase)
        rng = np.random.default_rng(run.seed)

        def step(rate: float) -> float:
            for group, share in shares:
                group["lr"] = rate * share
            some = rng.choice(len(run.train), min(len(run.train), run.recipe.batch_size), replace=False)
            try:
                return self._step(some, 0)
            except TrainingError:  # too high a rate: that is what the test is there to find
                return float("inf")

        try:
            rate = find_rate(step)
        finally:
            self._network.load_state_dict(before)
        run.workspace.progress.info(f"{self.phase.name}: learning rate {rate:.2g} from a range test")
        return rate

    # -------------------------------------------------------------------------------------------------- a validation

    @torch.no_grad()
    def validate(self) -> NDArray[np.float32]:
        """Logits ``(N, C)`` of the validation images, under the averaged weights if there are any."""
        assert self._validation is not None
        network = self._tail if self._average is None else self._average
        network.eval()
        rows = [torch.from_numpy(self._validation.at(few)).to(self._accelerator.device).float() for few in self._chunks()]
        result: NDArray[np.float32] = torch.cat([network(few).float().cpu() for few in rows]).numpy()
        return result

    def _chunks(self) -> Iterator[Sequence[int]]:
        assert self._validation is not None
        for start in range(0, len(self._validation), BATCH_SIZE):
            yield range(start, min(start + BATCH_SIZE, len(self._validation)))

    @property
    def averages(self) -> bool:
        """Whether an average of the weights is kept."""
        return self._average is not None

    def weights(self) -> dict[str, Tensor]:
        """The network's tensors, copied to the CPU, averaged where an average is kept."""
        state = {name: tensor.detach().cpu().clone() for name, tensor in self._network.state_dict().items()}
        if self._average is not None:
            state |= self._named_like_network(self._average.module.state_dict())
        return state

    def _named_like_network(self, tail: Mapping[str, Tensor]) -> dict[str, Tensor]:
        boundary = len(self._prefix.blocks)
        last = len(self._run.blocks) - boundary
        named = {}
        for name, tensor in tail.items():
            index, _, rest = name.partition(".")
            place = "head" if int(index) == last else f"blocks.{int(index) + boundary}"
            named[f"{place}.{rest}"] = tensor.detach().cpu().clone()
        return named

    # -------------------------------------------------------------------------------------------------- a checkpoint

    def state(self) -> dict[str, dict[str, Tensor]]:
        """All tensors that the rest of the phase depends on."""
        average = {} if self._average is None else dict(self._average.state_dict())
        network = dict(self._network.state_dict())
        rates = {"head": torch.tensor(self._head_lr, dtype=torch.float64)}
        return {"network": network, "optimizer": flat_optimizer_state(self.optimizer), "average": average, "rates": rates}

    def _go_on(self, checkpoint: Checkpoint) -> None:
        load_optimizer_state(self.optimizer, checkpoint.tensors["optimizer"])
        if self._average is not None:
            self._average.load_state_dict(checkpoint.tensors["average"])


def _class_weights(run: Run) -> Tensor:
    """One weight per class, ``(C,)``: all 1, or inversely as frequent as the class, 1 on average over images."""
    if run.recipe.class_weighting == "none":
        return torch.ones(run.num_classes)
    counts = np.bincount(run.train.labels, minlength=run.num_classes)
    return torch.from_numpy(len(run.train) / (run.num_classes * np.maximum(counts, 1))).float()
