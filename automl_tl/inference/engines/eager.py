"""torch as it is: always there, and the measure of every other engine."""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automl_tl.values import Preprocessing

__all__ = ["EagerEngine", "Engine", "Normalise", "best_device", "blocks_digest"]


class Engine(Protocol):
    """Frozen blocks, ready to run."""

    @property
    def name(self) -> str:
        """For people."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images ``(B, side_px, side_px, 3)``, 0 to 255, to what the last block gives, ``(B, ...)``."""


class Normalise(nn.Module):
    """From bytes ``(B, H, W, 3)`` to float32 ``(B, 3, H, W)``, channels last in memory, normalised."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.register_buffer("factor", (1 / (255 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", (-mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 ``(B, H, W, 3)`` to float32 ``(B, 3, H, W)``."""
        planes = images.permute(0, 3, 1, 2)  # a view: bytes stored HWC are already channels last
        return torch.addcmul(self.get_buffer("offset"), planes.float(), self.get_buffer("factor"))


class EagerEngine:
    """torch as it is: channels last, no gradients; half precision on a GPU that is good at it."""

    name = "eager"

    def __init__(self, blocks: nn.Module, preprocessing: Preprocessing, device: torch.device | None = None) -> None:
        self._device = device or best_device()
        network = nn.Sequential(Normalise(preprocessing), blocks).eval().to(self._device)
        self._network = network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See ``Engine``."""
        on_gpu = self._device.type == "cuda"
        batch = torch.from_numpy(images).to(self._device, non_blocking=True)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=on_gpu and torch.cuda.is_bf16_supported()):
            result: NDArray[np.float32] = self._network(batch).float().cpu().numpy()
        return result


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def blocks_digest(blocks: nn.Module) -> str:
    """sha256 over the layers of ``blocks``, as they print, and their tensors."""
    total = hashlib.sha256(repr(blocks).encode())
    for name, tensor in blocks.state_dict().items():
        total.update(name.encode())
        plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        total.update(plain.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
