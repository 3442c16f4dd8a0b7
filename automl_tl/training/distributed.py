"""Data-parallel training: one run on several processes of this machine, one per GPU, or any number on a CPU.

This process is rank 0. It owns clock, terminal, validation, checkpoints and publishing, and tells the others what to do in
every step. Each rank computes the gradient of its share of the batch; ``all_reduce`` adds them up; every rank then takes the
same optimizer step. The sum is the gradient of the whole batch, so batch size and learning rates of the recipe keep their
meaning. What the other processes run is in ``rank.py``; decision 64 has the reasons.
"""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn

from automl_tl.errors import PlanError, TrainingError
from automl_tl.models.heads import SingleHead
from automl_tl.runtime.child_processes import SAFE_PATH
from automl_tl.runtime.resources import find_cause, resource_error
from automl_tl.runtime.threads import num_cores
from automl_tl.training.checkpoints import State
from automl_tl.training.run import BATCH_NORMS, TrainingRun
from automl_tl.values import ImageRecord, Phase

# Every rank is about to call a collective operation when one waits for it, so this is a matter of milliseconds.
TIMEOUT: Final = timedelta(minutes=2)
# Variables of torchrun and accelerate, and of Open MPI: number of processes, and the number of this one.
LAUNCHERS: Final = (("WORLD_SIZE", "RANK"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"))
SETTINGS: Final = ("recipe", "preprocessing", "num_classes", "flips", "seed")  # fields of a TrainingRun that all ranks share


@dataclass(frozen=True)
class PhaseStart:
    """Everything that a rank needs to train a phase; images come from the caches that rank 0 has filled."""

    number: int
    blocks: nn.Sequential
    head: SingleHead
    settings: dict[str, Any]  # further fields of the TrainingRun
    records: tuple[ImageRecord, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    optimizer: State
    folder: Path
    cache_dir: Path


@dataclass(frozen=True)
class EpochStart:
    """Begin an epoch of the phase."""

    epoch: int


@dataclass(frozen=True)
class Step:
    """Compute the gradient of ``positions`` ``(B,)``, add up those of all ranks, and take an optimizer step."""

    positions: NDArray[np.int64]
    num_images: int  # of the whole batch
    view: int
    lr_factor: float


def num_processes(requested: int | None, device: torch.device) -> int:
    """Return the most processes that a plan may train with: the requested number, or one per GPU.

    Args:
        requested: by the user.
        device: that trains.
    """
    return requested or (torch.cuda.device_count() if device.type == "cuda" else 1)


def check_processes(processes: int, device: torch.device) -> None:
    """Check that this machine can train with so many processes.

    Args:
        processes: number of them.
        device: that trains.

    Raises:
        PlanError: it cannot.
    """
    if processes == 1:
        return
    num_gpus = torch.cuda.device_count()
    if device.type not in ("cpu", "cuda"):
        problem = f"{device.type} trains in one process"
    elif device.type == "cuda" and processes > num_gpus:
        problem = f"found {num_gpus} {'GPU' if num_gpus == 1 else 'GPUs'}, expected one for each process"
    elif not distributed.is_available():
        problem = "this build of PyTorch has no torch.distributed"
    elif distributed.is_initialized():
        problem = "this program has a torch.distributed process group of its own"
    else:
        return
    raise PlanError(f"Cannot train in {processes} processes: {problem}. Use fewer, or leave --processes out.")


def reject_launcher() -> None:
    """Raise if a launcher started this program several times: each process would fit and publish a model of its own.

    Raises:
        PlanError: it did.
    """
    for size, rank in LAUNCHERS:
        num_processes = os.environ.get(size, "1")
        if rank in os.environ and num_processes.isdecimal() and int(num_processes) > 1:
            raise PlanError(
                f"A launcher such as torchrun, accelerate or mpirun started this command {num_processes} times "
                f"({size}={num_processes}, {rank}={os.environ[rank]}); each would publish a model of its own. "
                f"Run the command once, without it: `tl auto fit --processes {num_processes}` starts the processes itself."
            )


def is_split(phase: Phase, blocks: nn.Sequential) -> bool:
    """Whether the batches of a phase may be split over processes: not where batch norm needs the whole batch's statistics.

    Args:
        phase: to train.
        blocks: of the encoder.
    """
    modules = (module for index in phase.train_blocks for module in blocks[index].modules())
    return phase.batch_norm == "frozen" or not any(isinstance(each, BATCH_NORMS) for each in modules)


@contextmanager
def process_group(rank: int, size: int, file: Path, device: torch.device) -> Iterator[None]:
    """Join a process group of this machine; with a CPU, each rank has its share of the cores.

    Args:
        rank: of this process.
        size: number of processes.
        file: where they meet, in a folder of this user alone.
        device: that trains; GPUs use NCCL, CPUs gloo.
    """
    before, threads = os.environ.get("GLOO_SOCKET_IFNAME"), torch.get_num_threads()
    # 1) gloo listens on the address of the host's name; nothing but this machine should reach it.
    if before is None and (loopback := _loopback()) is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = loopback
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        store = distributed.FileStore(str(file), size)  # type: ignore[attr-defined] # public, but not in __all__
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    finally:
        if before is None:
            os.environ.pop("GLOO_SOCKET_IFNAME", None)
    # 2) Threads of all ranks together: as many as cores.
    try:
        if device.type == "cpu":
            torch.set_num_threads(max(1, min(threads, num_cores() // size)))
        yield
    finally:
        torch.set_num_threads(threads)
        distributed.destroy_process_group()


def _loopback() -> str | None:
    """Name of the loopback interface; Windows has none by that name and takes the host's."""
    import socket

    names = [name for _, name in socket.if_nameindex()] if sys.platform != "win32" else []
    return next((name for name in ("lo", "lo0") if name in names), None)


def add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace the gradients of ``parameters`` by their sums over all ranks, in one operation."""
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    totals = torch.split(flat, [gradient.numel() for gradient in gradients])
    for parameter, gradient, total in zip(parameters, gradients, totals, strict=True):
        parameter.grad = gradient.copy_(total.view_as(gradient))


@dataclass
class Ranks:
    """The other processes of a run, as rank 0 sees them; ``open`` starts them."""

    run: TrainingRun
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)
    _file: Path = field(init=False)
    _is_joined: bool = False

    @classmethod
    @contextmanager
    def open(cls, run: TrainingRun) -> Iterator[Ranks | None]:
        """Start the other processes of ``run`` and end them at the end; ``None`` if one process trains it.

        Raises:
            PlanError: this machine cannot train with so many processes.
        """
        check_processes(run.processes, run.workspace.device)
        if run.processes == 1:
            yield None
            return
        if not any(is_split(phase, run.blocks) for phase in run.recipe.phases):
            run.workspace.progress.info("one process trains: batch norm needs the statistics of whole batches")
            yield None
            return
        ranks = cls(run)
        try:
            ranks._start()
            yield ranks
        finally:
            ranks._end()

    def _start(self) -> None:
        self.run.workspace.folder.mkdir(parents=True, exist_ok=True)
        self._file = self.run.workspace.folder / f"ranks-{uuid.uuid4().hex}"
        import_path = os.pathsep.join(filter(None, sys.path))  # the modules of the backbone are found where this process did
        for rank in range(1, self.run.processes):
            arguments = [str(rank), str(self.run.processes), str(self._file), self.run.workspace.device.type]
            with self._log(rank).open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "automl_tl.training.rank", *arguments],
                    env={**os.environ, "PYTHONPATH": import_path, SAFE_PATH: "1"},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
                    start_new_session=True,  # Ctrl-C in the terminal reaches this process only, which ends them
                )
            self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        """Ids of the other processes."""
        return [process.pid for process in self._processes]

    def start_phase(self, number: int, optimizer: State) -> None:
        """Let every rank prepare a phase, with the weights that rank 0 has now.

        Args:
            number: of the phase.
            optimizer: its state, by ``index.name``.

        Raises:
            TrainingError: a process died, or the network cannot be sent to it.
        """
        run = self.run
        start = PhaseStart(
            number=number,
            blocks=run.blocks,
            head=run.head,
            settings={name: getattr(run, name) for name in SETTINGS},
            records=run.train.records,
            labels=run.train.labels,
            groups=run.train.groups,
            optimizer=optimizer,
            folder=run.workspace.folder,
            cache_dir=run.workspace.cache_dir,
        )
        buffer = io.BytesIO()
        try:
            torch.save(start, buffer)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TrainingError(f"The backbone cannot be sent to other processes ({error}). Use --processes 1.") from error
        self._send([buffer.getvalue()] * len(self._processes))
        self._replies()
        if not self._is_joined:
            self._join()

    def _join(self) -> None:
        self._group = process_group(0, self.run.processes, self._file, self.run.workspace.device)
        self._group.__enter__()
        self._is_joined = True

    def start_epoch(self, epoch: int) -> None:
        """Let every rank begin an epoch of the phase."""
        self._send([EpochStart(epoch)] * len(self._processes))

    def share(self, positions: NDArray[np.int64], view: int, factor: float) -> NDArray[np.int64]:
        """Give every rank its share of a batch, and return that of rank 0.

        Args:
            positions: ``(B,)`` of the images in the batch.
            view: of the images.
            factor: on the learning rates.
        """
        own, *others = np.array_split(positions, self.run.processes)
        self._send([Step(each, len(positions), view, factor) for each in others])
        return own

    def losses(self) -> float:
        """Wait until every rank has its gradient, and return the sum of their losses.

        Raises:
            TrainingError: a process failed or died.
        """
        return float(sum(self._replies()))

    def _send(self, messages: Sequence[object]) -> None:
        for rank, (process, message) in enumerate(zip(self._processes, messages, strict=True), start=1):
            assert process.stdin is not None
            try:
                pickle.dump(message, process.stdin)
                process.stdin.flush()
            except OSError as error:  # a broken pipe
                raise self._death(rank) from error

    def _replies(self) -> list[float]:
        """One number from each rank; a rank that fails sends its error's text instead."""
        replies: list[float] = []
        for rank, process in enumerate(self._processes, start=1):
            assert process.stdout is not None
            try:
                reply = pickle.load(process.stdout)
            except (EOFError, pickle.UnpicklingError) as error:
                raise self._death(rank) from error
            if isinstance(reply, str):
                raise TrainingError(reply)
            replies.append(reply)
        return replies

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace the gradients of ``parameters`` by their sums over all ranks.

        Raises:
            TrainingError: a process died meanwhile.
        """
        try:
            add_gradients(parameters)
        except RuntimeError:  # gloo: connection closed by peer
            for rank, process in enumerate(self._processes, start=1):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                    raise self._death(rank) from None
            raise

    def _death(self, rank: int) -> Exception:
        process = self._processes[rank - 1]
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        code = process.returncode
        ended = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        lines = self._log(rank).read_text("utf-8", errors="replace").strip().splitlines()
        if lines and (number := find_cause(lines[-1])) is not None:
            return resource_error(number, None)
        last = f" ({lines[-1]})" if lines else ""
        return TrainingError(
            f"Training process {rank + 1} of {self.run.processes} {ended}{last}. "
            "Run the command again: it resumes from the last checkpoint. --processes 1 trains in one process."
        )

    def _log(self, rank: int) -> Path:
        return self._file.with_suffix(f".{rank}.log")

    def _end(self) -> None:
        """End the processes: they hold nothing that is needed."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            process.wait()
        if self._is_joined:
            with suppress(RuntimeError):
                self._group.__exit__(None, None, None)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters that ``optimizer`` changes, in order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
