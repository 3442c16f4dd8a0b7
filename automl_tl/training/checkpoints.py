"""Where a run stands, on disk: tensors and JSON in one safetensors file that is there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["Checkpoint", "Checkpoints", "flat_optimizer_state", "load_optimizer_state"]

State = dict[str, Tensor]
FORMAT = 4  # of what is saved; another one is as good as none
PARTS = ("network", "kept", "optimizer", "logits")


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``epochs_done`` epochs of phase number ``phase``; ``facts`` is plain JSON about its state."""

    phase: int
    epochs_done: int
    facts: dict[str, Any]
    tensors: Mapping[str, State]


class Checkpoints:
    """The latest checkpoint of one run; the file's name is a digest of all that makes the run what it is."""

    def __init__(self, folder: Path, run_digest: str, *, every_s: float = 10.0) -> None:
        self.file = folder / "runs" / f"{run_digest}.safetensors"
        self.every_s = every_s

    def save(self, checkpoint: Checkpoint) -> None:
        """Put ``checkpoint`` in the place of the one before."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        draft = self.file.with_suffix(f".{os.getpid()}.draft")
        flat = {
            f"{part}/{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for part, state in checkpoint.tensors.items()
            for name, tensor in state.items()
        }
        facts = {"format": FORMAT, "phase": checkpoint.phase, "epochs_done": checkpoint.epochs_done, "facts": checkpoint.facts}
        save_file(flat, draft, metadata={"run": json.dumps(facts)})
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.rename(self.file)

    def load(self) -> Checkpoint | None:
        """The checkpoint, or ``None`` if there is none, or it is damaged or of another format."""
        try:
            with safe_open(self.file, framework="pt") as file:
                facts = json.loads(file.metadata()["run"])
                flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        if facts.get("format") != FORMAT:
            return None
        tensors: dict[str, State] = {part: {} for part in PARTS}
        for name, tensor in flat.items():
            part, _, rest = name.partition("/")
            tensors[part][rest] = tensor
        return Checkpoint(facts["phase"], facts["epochs_done"], facts["facts"], tensors)

    def remove(self) -> None:
        """Forget the run."""
        self.file.unlink(missing_ok=True)


def flat_optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """Tensors of the optimizer's state, by ``index.name``."""
    return {
        f"{index}.{name}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Put back what ``flat_optimizer_state`` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
