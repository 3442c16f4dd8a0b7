"""EfficientNet-Lite in plain torch, with timm's parameter names.

timm's own model is not used because importing timm takes 3 seconds longer than importing torch, on every ``tl predict``
(decision 3); a test compares the two. Source: Tan and Le, EfficientNet, arXiv 1905.11946; the Lite variants (no
squeeze-and-excitation, ReLU6, fixed stem and head): github.com/tensorflow/tpu.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from automl_tl.errors import WeightsError

# (repeats, kernel, stride, expansion, channels) of the seven stages of EfficientNet-B0
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
WIDTH_AND_DEPTH = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
FEATURE_DIM = 1280
BATCH_NORM_EPSILON = 1e-3  # TensorFlow's


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, where odd padding is larger at the right and the bottom."""

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, out_channels, ceil(H / stride), ceil(W / stride))``."""
        if self.stride[0] == 1:  # symmetric padding is faster inside the convolution
            return functional.conv2d(images, self.weight, self.bias, 1, self.kernel_size[0] // 2, 1, self.groups)
        missing = [
            max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            for size, kernel, stride in zip(images.shape[-2:], self.kernel_size, self.stride, strict=True)
        ]
        height, width = missing
        padded = functional.pad(images, [width // 2, width - width // 2, height // 2, height - height // 2])
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)


class SeparableBlock(nn.Module):
    """Depthwise and pointwise convolution, the block of the first stage."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = SameConv2d(channels_in, channels_in, kernel, stride, groups=channels_in, bias=False)
        self.bn1 = _norm(channels_in)
        self.conv_pw = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn2 = _norm(channels)
        self.has_shortcut = stride == 1 and channels_in == channels

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, channels, H / stride, W / stride)``."""
        inner = functional.relu6(self.bn1(self.conv_dw(images)))
        out: Tensor = self.bn2(self.conv_pw(inner))
        return out + images if self.has_shortcut else out


class InvertedBlock(nn.Module):
    """Pointwise expansion, depthwise convolution, pointwise projection."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.conv_pw = nn.Conv2d(channels_in, inner, 1, bias=False)
        self.bn1 = _norm(inner)
        self.conv_dw = SameConv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        self.bn2 = _norm(inner)
        self.conv_pwl = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn3 = _norm(channels)
        self.has_shortcut = stride == 1 and channels_in == channels

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, channels, H / stride, W / stride)``."""
        inner = functional.relu6(self.bn1(self.conv_pw(images)))
        inner = functional.relu6(self.bn2(self.conv_dw(inner)))
        out: Tensor = self.bn3(self.conv_pwl(inner))
        return out + images if self.has_shortcut else out


class EfficientNetLiteNetwork(nn.Module):
    """The whole network with its classifier; names and order of the parameters are timm's."""

    def __init__(self, variant: int) -> None:
        super().__init__()
        width, depth = WIDTH_AND_DEPTH[variant]
        channels = 32  # the stem is not scaled in the Lite variants
        self.conv_stem = SameConv2d(3, channels, 3, 2, bias=False)
        self.bn1 = _norm(channels)
        stages: list[nn.Module] = []
        for index, (repeats, kernel, stride, expansion, base) in enumerate(STAGES):
            is_fixed = index in (0, len(STAGES) - 1)  # the repeats of the first and last stage are not scaled either
            count = repeats if is_fixed else math.ceil(repeats * depth)
            wide = _rounded(base * width)
            stages.append(_stage(channels, wide, kernel=kernel, stride=stride, expansion=expansion, count=count))
            channels = wide
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(channels, FEATURE_DIM, 1, bias=False)
        self.bn2 = _norm(FEATURE_DIM)
        self.classifier = nn.Linear(FEATURE_DIM, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images ``(B, 3, H, W)`` to ImageNet logits ``(B, 1000)``."""
        logits: Tensor = self.classifier(nn.Sequential(*cut(self))(images))
        return logits


def _rounded(channels: float) -> int:
    """Round to the nearest multiple of 8 that is not more than 10% below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _stage(channels_in: int, channels: int, *, kernel: int, stride: int, expansion: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(count):
        step = stride if index == 0 else 1
        if expansion == 1:
            layers.append(SeparableBlock(channels_in, channels, kernel, step))
        else:
            layers.append(InvertedBlock(channels_in, channels, kernel, step, expansion))
        channels_in = channels
    return nn.Sequential(*layers)


def cut(network: nn.Module) -> Sequence[nn.Module]:
    """Return stem, seven stages, and the last convolution with pooling: ``(B, 3, H, W)`` to ``(B, 1280)``."""
    assert isinstance(network, EfficientNetLiteNetwork)
    stem = nn.Sequential(OrderedDict(conv_stem=network.conv_stem, bn1=network.bn1, act=nn.ReLU6()))
    last = nn.Sequential(
        OrderedDict(
            conv_head=network.conv_head, bn2=network.bn2, act=nn.ReLU6(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()
        )
    )
    return [stem, *network.blocks, last]


def load_packaged(network: EfficientNetLiteNetwork, file: Path) -> None:
    """Load a packaged ``.pth``, which has other names, but the same tensors in the same order.

    Args:
        network: to load into.
        file: of the same variant.

    Raises:
        WeightsError: the shapes of the tensors differ.
    """
    packaged = torch.load(file, map_location="cpu", weights_only=True)
    state = network.state_dict()
    if [tensor.shape for tensor in packaged.values()] != [tensor.shape for tensor in state.values()]:
        raise WeightsError(f"{file.name} does not hold the tensors of this network. Reinstall the package that provides it.")
    network.load_state_dict(dict(zip(state, packaged.values(), strict=True)))
