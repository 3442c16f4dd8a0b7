"""Where the libraries keep downloaded weights, and which are there. Directory listings only: no torch, no network.

The rules are those of ``torch.hub`` and ``huggingface_hub`` (both documented), repeated here because importing either to ask
would cost more than all cards together.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Final

__all__ = ["HUB_FILES", "Caches", "hub_cache", "hub_folder", "newest_hub_file", "torch_checkpoints"]

# What timm asks a hub repository for, in this order, when the configuration names no file.
HUB_FILES: Final = ("model.safetensors", "pytorch_model.bin")


def hub_cache() -> Path:
    """Folder of the Hugging Face hub cache, by ``HF_HUB_CACHE``, ``HF_HOME``, ``XDG_CACHE_HOME``."""
    explicit = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME") or str(_cache_home() / "huggingface")
    return Path(explicit or Path(home) / "hub").expanduser()


def torch_checkpoints() -> Path:
    """Folder of torch hub's checkpoints, by ``TORCH_HOME``, ``XDG_CACHE_HOME``."""
    home = os.environ.get("TORCH_HOME") or str(_cache_home() / "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


class Caches:
    """Which weights are here already, as of the first question."""

    @cached_property
    def _repositories(self) -> frozenset[str]:
        return _names(hub_cache())

    @cached_property
    def _checkpoints(self) -> frozenset[str]:
        return _names(torch_checkpoints())

    def has_hub_file(self, repository: str, filename: str) -> bool:
        """Whether a snapshot of ``repository`` holds ``filename``, or any file that timm would take."""
        folder = hub_folder(repository)
        if folder not in self._repositories:
            return False
        return newest_hub_file(repository, (filename,) if filename else HUB_FILES) is not None

    def has_checkpoint(self, filename: str) -> bool:
        """Whether torch hub's folder holds ``filename``."""
        return filename in self._checkpoints


def newest_hub_file(repository: str, names: tuple[str, ...]) -> Path | None:
    """The first of ``names`` that a snapshot of ``repository`` holds, in the newest such snapshot."""
    snapshots = hub_cache() / hub_folder(repository) / "snapshots"
    for name in names:
        found = [path for path in snapshots.glob(f"*/{name}") if path.is_file()]
        if found:
            return max(found, key=lambda path: path.stat().st_mtime)
    return None


def hub_folder(repository: str) -> str:
    """Name of the folder of ``organization/model`` in the hub cache."""
    return "models--" + repository.partition("@")[0].replace("/", "--")


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir())
    except OSError:
        return frozenset()
