"""torch.compile with frozen weights: needs a C++ compiler and nothing else, and takes long to build."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["CompiledEngine"]

BATCH_SIZE: Final = 32  # the only shape that is compiled: another one would be compiled anew


class CompiledEngine:
    """A network ``(B, side_px, side_px, 3)`` uint8 -> float32, compiled by torch's inductor."""

    name = "compile"

    def __init__(self, network: nn.Module, folder: Path, side_px: int) -> None:
        """Compile ``network``. torch keeps what it compiled by itself; ``folder`` only says that it did.

        Raises:
            Exception: there is no compiler, or the network can't be compiled.
        """
        self._network = torch.compile(network.to(memory_format=torch.channels_last), options={"freezing": True})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, about its own internals
            self(np.zeros((BATCH_SIZE, side_px, side_px, 3), dtype=np.uint8))
        folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See ``Engine``; fewer images than a batch are filled up."""
        rows = []
        for start in range(0, len(images), BATCH_SIZE):
            few = images[start : start + BATCH_SIZE]
            batch = np.zeros((BATCH_SIZE, *images.shape[1:]), dtype=np.uint8)
            batch[: len(few)] = few
            rows.append(self._network(torch.from_numpy(batch)).numpy()[: len(few)])
        result: NDArray[np.float32] = np.concatenate(rows)
        return result
