"""What runs frozen blocks as fast as it can: from images as bytes to features or activations."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automl_tl.inference.openvino_engine import OpenVinoEngine
from automl_tl.story import Story
from automl_tl.values import Preprocessing

__all__ = ["EagerEngine", "Engine", "Normalise", "best_device", "blocks_digest", "fastest_engine"]

# Building OpenVINO's graph costs 2 CPU seconds once and 0.2 when it is found in the cache; each image then costs a quarter
# of eager's 33 ms (EfficientNet-Lite0, two cores; DECISIONS 4).
WORTH_BUILDING: Final = 100
WORTH_LOADING: Final = 16
TOLERANCE: Final = 1e-3  # of the largest value, on real images: float32 sums in another order differ by about 1e-6
NUM_COMPARED: Final = 4


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
    """sha256 over the tensors of ``blocks``."""
    total = hashlib.sha256()
    for name, tensor in blocks.state_dict().items():
        total.update(name.encode())
        plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        total.update(plain.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def fastest_engine(
    blocks: nn.Module, preprocessing: Preprocessing, *, cache_dir: Path, num_images: int, story: Story
) -> Engine:
    """The engine that is done first with ``num_images`` images, its building included.

    OpenVINO on a CPU when there are images enough, else eager. What OpenVINO says is held against eager on the first images;
    if it differs, or can't take the network, eager does it all and one line says so.
    """
    eager = EagerEngine(blocks, preprocessing)
    if best_device().type != "cpu":
        return eager
    key = hashlib.sha256(f"{blocks_digest(blocks)} {preprocessing.model_dump_json()}".encode()).hexdigest()
    folder = cache_dir / "engines" / key
    if num_images < (WORTH_LOADING if folder.is_dir() else WORTH_BUILDING):
        return eager
    try:
        network = nn.Sequential(Normalise(preprocessing), blocks).eval()
        quick = OpenVinoEngine(network, folder, preprocessing.side_px)
    except Exception as error:  # whatever a converter raises, eager can do the work
        story.say(f"OpenVINO can't take this network ({type(error).__name__}); going on with torch")
        return eager
    return ComparedEngine(quick, eager, story)


class ComparedEngine:
    """An engine that has to agree with eager on the first images that it sees."""

    def __init__(self, quick: Engine, eager: Engine, story: Story) -> None:
        self._engine, self._eager, self._story = quick, eager, story
        self._compared = False

    @property
    def name(self) -> str:
        """Of the engine that is in use."""
        return self._engine.name

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See ``Engine``."""
        rows = self._engine(images)
        if not self._compared:
            self._compared = True
            expected = self._eager(images[:NUM_COMPARED])
            difference = float(np.abs(rows[:NUM_COMPARED] - expected).max())
            if not difference <= TOLERANCE * float(np.abs(expected).max()):
                self._story.warn(f"{self._engine.name} differs from torch by {difference:.2g}; going on with torch")
                self._engine = self._eager
                return self._eager(images)
        return rows
