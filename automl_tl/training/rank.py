"""What the further processes of data-parallel training run: ``python -m automl_tl.training.rank RANK SIZE FILE DEVICE``.

Messages come from rank 0 through standard input, replies go to standard output, gradients through the process group. Rank 0 has
the clock: a rank never stops by itself, except when standard input ends because rank 0 died.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn

from automl_tl.errors import TrainingError
from automl_tl.models.engines import layout_on
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.runtime.threads import keep_freed_memory
from automl_tl.training.checkpoints import Checkpoint
from automl_tl.training.distributed import EpochStart, PhaseStart, Step, add_gradients, parameters_of, process_group
from automl_tl.training.images import LabeledImages
from automl_tl.training.loop import PhaseTrainer
from automl_tl.training.run import TrainingRun
from automl_tl.training.workspace import Workspace


def main(rank: int, size: int, file: Path, device: torch.device, messages: BinaryIO, replies: BinaryIO) -> None:
    """Carry out the messages of rank 0.

    Args:
        rank: of this process, from 1.
        size: number of processes.
        file: where the process group meets.
        device: that trains.
        messages: pickled messages of rank 0.
        replies: receive one pickled number per phase and step, or the text of an error.

    Raises:
        EOFError: rank 0 closed ``messages``.
    """
    keep_freed_memory()
    phase = _start_phase(pickle.load(messages), device)
    _reply(replies, 0.0)
    with process_group(rank, size, file, device):
        while True:
            message = pickle.load(messages)
            if isinstance(message, EpochStart):
                phase.start_epoch(message.epoch, rank=rank)
            elif isinstance(message, Step):
                try:
                    loss = phase.gradient(message.positions, message.view, num_images=message.num_images)
                except TrainingError as error:
                    _reply(replies, str(error))
                    return
                _reply(replies, loss)
                add_gradients(parameters_of(phase.optimizer))
                phase.update(message.lr_factor)
            else:
                phase = _start_phase(message, device)
                _reply(replies, 0.0)


def _reply(replies: BinaryIO, reply: float | str) -> None:
    pickle.dump(reply, replies)
    replies.flush()


def _start_phase(message: bytes, device: torch.device) -> PhaseTrainer:
    """Prepare a phase as rank 0 does, without validation images."""
    start: PhaseStart = torch.load(io.BytesIO(message), map_location="cpu", weights_only=False)  # from rank 0, through a pipe
    network = nn.ModuleDict({"blocks": start.blocks, "head": start.head})
    network.to(device=device, memory_format=layout_on(device))  # type: ignore[call-overload]
    run = TrainingRun(
        blocks=start.blocks,
        head=start.head,
        train=LabeledImages(start.records, start.labels, start.groups, _never_read),
        validation=None,
        workspace=Workspace(start.folder, start.cache_dir, Deadline(), QUIET, device),
        **start.settings,
    )
    return PhaseTrainer(run, start.number, network, Checkpoint(start.number, 0, {}, {"optimizer": start.optimizer}))


def _never_read(path: str) -> bytes:
    raise TrainingError(f"{path} is missing in the cache that the first training process has filled. Run the command again.")


if __name__ == "__main__":
    rank, size, file, kind = sys.argv[1:]
    # 1) Replies have a file descriptor of their own; what libraries print must not mix with them.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # 2) One GPU for each rank.
    if kind == "cuda":
        torch.cuda.set_device(int(rank))
    try:
        main(int(rank), int(size), Path(file), torch.device(kind), sys.stdin.buffer, replies)
    except EOFError:  # rank 0 is gone, or done
        sys.exit(1)
