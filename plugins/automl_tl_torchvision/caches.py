"""Where torch hub keeps downloaded checkpoints. A directory listing only: no torch, no network."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["checkpoints", "torch_checkpoints"]


def torch_checkpoints() -> Path:
    """Folder of torch hub's checkpoints, by ``TORCH_HOME``, then ``XDG_CACHE_HOME``, as ``torch.hub`` documents it."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or str(Path(cache) / "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def checkpoints() -> frozenset[str]:
    """Names of the files that are there."""
    try:
        return frozenset(path.name for path in torch_checkpoints().iterdir())
    except OSError:
        return frozenset()
