"""torchvision's ResNet of any depth and its blocks: the only module that imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from automl_tl.errors import WeightsError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from automl_tl_local_checkpoints.headers import Header

__all__ = ["build", "cut"]


def build(header: Header, weights: Path | None) -> nn.Module:
    """Build the network that ``header`` describes, in eval mode.

    Args:
        header: of the checkpoint.
        weights: the checkpoint; ``None``: random weights.

    Raises:
        WeightsError: the file cannot be read, or its tensors do not fit.
    """
    kind = Bottleneck if header.is_bottleneck else BasicBlock
    network: nn.Module = ResNet(kind, list(header.blocks_per_stage), num_classes=header.num_classes)
    if weights is not None:
        try:
            network.load_state_dict(load_file(weights))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise WeightsError(f"{weights} cannot be loaded: {error}") from error
    return network.eval()


def cut(network: nn.Module) -> Sequence[nn.Module]:
    """Return stem, four stages and pooling: ``(B, 3, H, W)`` to ``(B, feature_dim)``."""
    child = network.get_submodule
    stem = nn.Sequential(child("conv1"), child("bn1"), nn.ReLU(), child("maxpool"))
    return [stem, *(child(f"layer{number}") for number in (1, 2, 3, 4)), nn.Sequential(child("avgpool"), nn.Flatten())]
