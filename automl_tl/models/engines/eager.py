"""torch as it is: always there, and the measure of every other engine."""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automl_tl.values import Preprocessing

__all__ = ["EagerEngine", "Engine", "Normalize", "best_device", "blocks_digest", "layout_on"]


class Engine(Protocol):
    """Frozen blocks, ready to run."""

    @property
    def name(self) -> str:
        """For people."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images ``(B, side_px, side_px, 3)``, 0 to 255, to what the last block gives, ``(B, ...)``."""


class Normalize(nn.Module):
    """From bytes ``(B, H, W, 3)`` to float32 ``(B, 3, H, W)``, channels last in memory, normalized."""

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
    """torch as it is: no gradients; half precision on a GPU that is good at it."""

    name = "eager"

    def __init__(self, blocks: nn.Module, preprocessing: Preprocessing, device: torch.device | None = None) -> None:
        self._device = device or best_device()
        self._layout = layout_on(self._device)
        self._normalize = Normalize(preprocessing).to(self._device)
        self._blocks = blocks.eval().to(device=self._device, memory_format=self._layout)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See ``Engine``."""
        on_gpu = self._device.type == "cuda"
        batch = torch.from_numpy(images).to(self._device, non_blocking=True)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=on_gpu and torch.cuda.is_bf16_supported()):
            planes = self._normalize(batch).contiguous(memory_format=self._layout)
            result: NDArray[np.float32] = self._blocks(planes).float().cpu().numpy()
        return result


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def layout_on(device: torch.device) -> torch.memory_format:
    """How images and weights lie in memory: channels last, which is faster, but not on a CUDA device.

    There cuDNN (from 9.10 on) compiles depthwise convolutions that are channels last anew for every number of images, 0.1 s
    a layer (NVIDIA/cudnn-frontend issue 1066); torch has kernels of its own for the others (DECISIONS 44).
    """
    return torch.contiguous_format if device.type == "cuda" else torch.channels_last


def blocks_digest(blocks: nn.Module) -> str:
    """sha256 over the layers of ``blocks``, as they print, and their tensors."""
    total = hashlib.sha256(repr(blocks).encode())
    for name, tensor in blocks.state_dict().items():
        total.update(name.encode())
        plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        total.update(plain.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
