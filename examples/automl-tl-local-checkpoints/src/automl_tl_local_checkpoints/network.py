"""torchvision's ResNet of any depth, and its parts: the only module that needs torch."""

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
    """The network that ``header`` describes, in eval mode, with the tensors of ``weights`` if given.

    Raises:
        WeightsError: the tensors don't fit, or the file is gone.
    """
    kind = Bottleneck if header.is_bottleneck else BasicBlock
    network: nn.Module = ResNet(kind, list(header.blocks_per_stage), num_classes=header.num_classes)
    if weights is not None:
        try:
            network.load_state_dict(load_file(weights))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise WeightsError(f"{weights} can't be loaded: {error}") from error
    return network.eval()


def cut(network: nn.Module) -> Sequence[nn.Module]:
    """Stem, four stages, pooling: ``(B, 3, H, W)`` to ``(B, feature_dim)``."""
    part = network.get_submodule
    stem = nn.Sequential(part("conv1"), part("bn1"), nn.ReLU(), part("maxpool"))
    return [stem, *(part(f"layer{number}") for number in (1, 2, 3, 4)), nn.Sequential(part("avgpool"), nn.Flatten())]
