"""What the header of a safetensors file says about a ResNet: shapes are enough to know all about it. No torch here."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

__all__ = ["Header", "read_header"]

LONGEST_HEADER = 100_000_000  # the format's own limit
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
        """Such as ``(2, 2, 2, 2)`` for ResNet-18."""
        names = [re.match(r"layer(\d)\.(\d+)\.conv1\.weight$", name) for name in self.shapes]
        found = [(int(name[1]), int(name[2])) for name in names if name]
        return tuple(1 + max(block for stage, block in found if stage == number) for number in STAGES)

    @property
    def is_bottleneck(self) -> bool:
        """Three convolutions per block, as from ResNet-50 on."""
        return "layer1.0.conv3.weight" in self.shapes

    @property
    def same_network_as(self) -> tuple[str, ...]:
        """Backbones that others offer with these tensors, if this is one of the published depths."""
        name = PUBLISHED.get((self.is_bottleneck, self.blocks_per_stage))
        return (f"torchvision/{name}", f"timm/{name}") if name else ()

    @property
    def feature_dim(self) -> int:
        """Width of what the classifier takes."""
        return self.shapes["fc.weight"][1]

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier."""
        return self.shapes["fc.weight"][0]

    @property
    def num_parameters(self) -> int:
        """All that learns, the classifier included."""
        return sum(prod(shape) for name, shape in self.shapes.items() if not name.endswith(STATISTICS))

    def num_macs(self, side_px: int) -> int:
        """Multiply-accumulates of all convolutions for one image of ``side_px``."""
        return sum(prod(shape) * self._side_after(name, side_px) ** 2 for name, shape in self.shapes.items() if len(shape) == 4)

    def _side_after(self, name: str, side_px: int) -> int:
        """Side of what the convolution ``name`` gives: halved by conv1, by pooling, and by each stage after the first."""
        place = re.match(r"layer(\d)\.(\d+)\.(\w+)", name)
        if place is None:
            return -(-side_px // 2)
        halvings = 1 + int(place[1])
        if self.is_bottleneck and place[2] == "0" and place[3] == "conv1" and place[1] != "1":
            halvings -= 1  # torchvision strides in the second convolution
        return -(-side_px // (1 << halvings))


def read_header(file: Path) -> Header:
    """Header of ``file``.

    Raises:
        ValueError: it is no safetensors file, or holds no ResNet with torchvision's names and widths.
    """
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length < LONGEST_HEADER:
            raise ValueError("it is no safetensors file")
        entries = json.loads(opened.read(length))
    metadata = entries.pop("__metadata__", {})
    header = Header({name: tuple(entry["shape"]) for name, entry in entries.items()}, metadata)
    needed = ["conv1.weight", "fc.weight", *(f"layer{stage}.0.conv1.weight" for stage in STAGES)]
    missing = [name for name in needed if name not in header.shapes]
    if missing:
        raise ValueError(f"it holds no ResNet with torchvision's names: {', '.join(missing)} missing")
    if header.shapes["conv1.weight"] != (64, 3, 7, 7):
        raise ValueError(f"its first convolution is {header.shapes['conv1.weight']}, torchvision's ResNets have (64, 3, 7, 7)")
    return header
