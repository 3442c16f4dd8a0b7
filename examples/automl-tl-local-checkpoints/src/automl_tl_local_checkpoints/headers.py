"""Facts about a ResNet from the header of its safetensors file, read without torch."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

__all__ = ["Header", "read_header"]

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
STAGES = (1, 2, 3, 4)
PUBLISHED: Mapping[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Header:
    """Shapes by tensor name, and the file's metadata."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]

    @property
    def blocks_per_stage(self) -> tuple[int, ...]:
        """Number of blocks per stage, e.g. ``(2, 2, 2, 2)`` for ResNet-18."""
        matches = [re.match(r"layer(\d)\.(\d+)\.conv1\.weight$", name) for name in self.shapes]
        blocks = [(int(match[1]), int(match[2])) for match in matches if match]
        return tuple(1 + max(block for stage, block in blocks if stage == number) for number in STAGES)

    @property
    def is_bottleneck(self) -> bool:
        """Whether blocks have three convolutions, as in ResNet-50 and deeper."""
        return "layer1.0.conv3.weight" in self.shapes

    @property
    def same_network_as(self) -> tuple[str, ...]:
        """Backbones of other providers with the same tensors, for the published depths."""
        name = PUBLISHED.get((self.is_bottleneck, self.blocks_per_stage))
        return (f"torchvision/{name}", f"timm/{name}") if name else ()

    @property
    def feature_dim(self) -> int:
        """Number of features."""
        return self.shapes["fc.weight"][1]

    @property
    def num_classes(self) -> int:
        """Number of outputs of the classifier."""
        return self.shapes["fc.weight"][0]

    @property
    def num_parameters(self) -> int:
        """Number of trainable parameters, including the classifier."""
        return sum(prod(shape) for name, shape in self.shapes.items() if not name.endswith(STATISTICS))

    def num_macs(self, side_px: int) -> int:
        """Return the multiply-accumulates of all convolutions for one image of ``side_px``."""
        return sum(prod(shape) * self._side_after(name, side_px) ** 2 for name, shape in self.shapes.items() if len(shape) == 4)

    def _side_after(self, name: str, side_px: int) -> int:
        """Return the output resolution of convolution ``name``: halved by conv1, pooling and each stage after the first."""
        position = re.match(r"layer(\d)\.(\d+)\.(\w+)", name)
        if position is None:
            return -(-side_px // 2)
        halvings = 1 + int(position[1])
        if self.is_bottleneck and position.group(2, 3) == ("0", "conv1") and position[1] != "1":
            halvings -= 1  # torchvision strides in the second convolution
        return -(-side_px // (1 << halvings))


def read_header(file: Path) -> Header:
    """Read the header of ``file``.

    Raises:
        ValueError: it is not a safetensors file with a ResNet that has torchvision's names and widths.
    """
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length < MAX_HEADER_BYTES:
            raise ValueError("not a safetensors file")
        entries = json.loads(stream.read(length))
    metadata = entries.pop("__metadata__", {})
    header = Header({name: tuple(entry["shape"]) for name, entry in entries.items()}, metadata)
    required = ["conv1.weight", "fc.weight", *(f"layer{stage}.0.conv1.weight" for stage in STAGES)]
    missing = [name for name in required if name not in header.shapes]
    if missing:
        raise ValueError(f"not a ResNet with torchvision's names: {', '.join(missing)} missing")
    if header.shapes["conv1.weight"] != (64, 3, 7, 7):
        raise ValueError(f"the first convolution is {header.shapes['conv1.weight']}, expected (64, 3, 7, 7)")
    return header
