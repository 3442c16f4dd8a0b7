"""The state of a run on disk: tensors and JSON in one safetensors file, replaced atomically."""

from __future__ import annotations

import json
import logging
import os
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as tensors_of
from safetensors.torch import save_file
from torch import Tensor

from automl_tl.runtime.resources import explain

_log = logging.getLogger(__name__)
State = dict[str, Tensor]
FORMAT: Final = 5  # a checkpoint of another format is ignored
SECTIONS: Final = ("network", "kept", "optimizer", "logits")


@dataclass(frozen=True)
class Checkpoint:
    """A run after some epochs of one of its phases."""

    phase: int  # index
    epochs_done: int  # of the phase
    facts: dict[str, Any]  # plain JSON: curves and notes
    tensors: Mapping[str, State]  # by section


class Checkpoints:
    """The latest checkpoint of one run; the file is named after a digest of everything that determines the run."""

    def __init__(self, folder: Path, run_digest: str, *, every_s: float = 10.0) -> None:
        self.file = folder / "runs" / f"{run_digest}.safetensors"
        self.every_s = every_s
        self._saved_s = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint is at least ``every_s`` seconds old."""
        return time.monotonic() - self._saved_s >= self.every_s

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the previous checkpoint; without space for it, training goes on without checkpoints."""
        if self.every_s == inf:
            return
        draft = self.file.with_suffix(f".{os.getpid()}.draft")
        try:
            self._write(checkpoint, draft)
        except Exception as error:
            if (explained := explain(error, self.file)) is None:
                raise
            draft.unlink(missing_ok=True)
            self.every_s = inf
            _log.warning("no checkpoints, so that an interrupted fit starts again: %s", explained)

    def _write(self, checkpoint: Checkpoint, draft: Path) -> None:
        # 1) Copy all tensors to the CPU: saving must not depend on the device or the memory layout.
        self.file.parent.mkdir(parents=True, exist_ok=True)
        flat = {
            f"{section}/{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for section, state in checkpoint.tensors.items()
            for name, tensor in state.items()
        }
        position = {"phase": checkpoint.phase, "epochs_done": checkpoint.epochs_done, "facts": checkpoint.facts}
        facts = {"format": FORMAT, "checksum": _checksum(flat), **position}
        # 2) Write a draft and flush it to disk; Windows flushes writable files only.
        save_file(flat, draft, metadata={"run": json.dumps(facts)})
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
        # 3) Replace: after a crash the file is the previous checkpoint or this one, never a mixture.
        draft.replace(self.file)
        self._saved_s = time.monotonic()

    def load(self) -> Checkpoint | None:
        """The checkpoint, or ``None`` if it is missing, damaged or of another format."""
        try:
            with safe_open(self.file, framework="pt") as file:
                facts = json.loads(file.metadata()["run"])
            flat = tensors_of(self.file.read_bytes())  # into memory: Windows replaces no file that is mapped
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        if facts.get("format") != FORMAT or facts.get("checksum") != _checksum(flat):
            return None
        tensors: dict[str, State] = {section: {} for section in SECTIONS}
        for key, tensor in flat.items():
            section, _, name = key.partition("/")
            tensors[section][name] = tensor
        return Checkpoint(facts["phase"], facts["epochs_done"], facts["facts"], tensors)

    def remove(self) -> None:
        """Delete the checkpoint."""
        self.file.unlink(missing_ok=True)


def _checksum(flat: Mapping[str, Tensor]) -> int:
    """CRC-32 of all tensors, which finds what a power failure left half-written."""
    checksum = 0
    for name in sorted(flat):
        checksum = zlib.crc32(flat[name].flatten().view(torch.uint8).numpy().data, checksum)
    return checksum
