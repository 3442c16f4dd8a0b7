"""Blocks and classifiers of torchvision's classification networks.

Blocks share the network's modules; what is added here (pooling, flattening, the class token) has no parameters of its own.
The last linear layer is the classifier; layers before it, such as fc6 and fc7 of VGG, belong to the last block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn

Network: TypeAlias = Any  # one of torchvision's classes, which share no type
Blocks: TypeAlias = list[list[nn.Module]]

MAX_LAYER_GROUPS: Final = 8  # with embedding and norm, ten blocks


class Pool(nn.Module):
    """Mean over height and width, to ``(B, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C)``."""
        return x.mean((2, 3))


class Embedding(nn.Module):
    """Patch embedding of a ViT with class token and positions."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.conv_proj = network.conv_proj
        self.class_token = network.class_token
        self.pos_embedding = network.encoder.pos_embedding
        self.dropout = network.encoder.dropout
        self.side_px = network.image_size

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to tokens ``(B, 1 + N, C)``."""
        if x.shape[2:] != (self.side_px, self.side_px):
            raise ValueError(f"this ViT takes images of {self.side_px} x {self.side_px} px, found {tuple(x.shape[2:])}")
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), patches], dim=1)
        embedded: Tensor = self.dropout(tokens + self.pos_embedding)
        return embedded


class ClassToken(nn.Module):
    """Selection of the class token."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 1 + N, C)`` to ``(B, C)``."""
        return x[:, 0]


class TransformInput(nn.Module):
    """Conversion from ImageNet normalization to the range -1 to 1 of GoogLeNet and Inception v3, from TensorFlow."""

    MEAN: Final = (0.485, 0.456, 0.406)
    STD: Final = (0.229, 0.224, 0.225)

    def forward(self, x: Tensor) -> Tensor:
        """Convert images ``(B, 3, H, W)``."""
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (self.MEAN, self.STD))
        return x * (std / 0.5) + (mean - 0.5) / 0.5


# Families whose forward pass calls their modules in order. ``|`` separates blocks; ADDED has the names in capitals. DenseNet's
# RELU is not in place, unlike the library's, because a block must not modify its input.
CHAINS: Final = {
    "DenseNet": (
        "features.conv0 features.norm0 features.relu0 features.pool0 | features.denseblock1 features.transition1 | "
        "features.denseblock2 features.transition2 | features.denseblock3 features.transition3 | "
        "features.denseblock4 features.norm5 RELU | POOL"
    ),
    "GoogLeNet": (
        "conv1 maxpool1 conv2 conv3 maxpool2 | inception3a inception3b maxpool3 | "
        "inception4a inception4b inception4c inception4d inception4e maxpool4 | inception5a inception5b | avgpool FLATTEN"
    ),
    "Inception3": (
        "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2 | "
        "Mixed_5b Mixed_5c Mixed_5d | Mixed_6a Mixed_6b | Mixed_6c Mixed_6d | Mixed_6e | "
        "Mixed_7a | Mixed_7b | Mixed_7c | avgpool FLATTEN"
    ),
    "RegNet": (
        "stem | trunk_output.block1 | trunk_output.block2 | trunk_output.block3 | trunk_output.block4 | avgpool FLATTEN"
    ),
    "ResNet": "conv1 bn1 relu maxpool | layer1 | layer2 | layer3 | layer4 | avgpool FLATTEN",
    "ShuffleNetV2": "conv1 maxpool | stage2 | stage3 | stage4 | conv5 POOL",
}
ADDED: Final[dict[str, Callable[[], nn.Module]]] = {"FLATTEN": lambda: nn.Flatten(1), "POOL": Pool, "RELU": nn.ReLU}


def cut(network: nn.Module) -> Sequence[nn.Module]:
    """Split ``network`` into blocks that map ``(B, 3, H, W)`` to ``(B, feature_dim)``.

    Raises:
        TypeError: the family of ``network`` is unknown.
    """
    kind = type(network).__name__
    if kind not in (*CHAINS, *FAMILIES):
        raise TypeError(f"unknown torchvision network {kind}; expected one of {', '.join([*CHAINS, *FAMILIES])}")
    blocks = _chain(network, CHAINS[kind]) if kind in CHAINS else FAMILIES[kind](network)
    return [modules[0] if len(modules) == 1 else nn.Sequential(*modules) for modules in blocks]


def classifier(network: Network) -> nn.Module | None:
    """Return the last linear layer; ``None`` for SqueezeNet, whose classifier is not a function of pooled features."""
    for name in ("fc", "head", "heads", "classifier"):
        head = getattr(network, name, None)
        if isinstance(head, nn.Sequential) and len(head):
            head = head[-1]
        if isinstance(head, nn.Linear):
            return head
    return None


def _until(layers: Iterable[nn.Module], last: type[nn.Module]) -> Blocks:
    """Split ``layers`` after every layer of type ``last``."""
    runs: Blocks = [[]]
    for layer in layers:
        runs[-1].append(layer)
        if isinstance(layer, last):
            runs.append([])
    return [run for run in runs if run]


def _pooled(network: Network) -> list[nn.Module]:
    return [network.avgpool, nn.Flatten(1)]


def _chain(network: Network, row: str) -> Blocks:
    """Split a network by its row of ``CHAINS``."""
    blocks = [
        [ADDED[name]() if name in ADDED else network.get_submodule(name) for name in names.split()] for names in row.split("|")
    ]
    if getattr(network, "transform_input", False):  # GoogLeNet and Inception v3
        blocks[0].insert(0, TransformInput())
    return blocks


def _alexnet(network: Network) -> Blocks:
    """Split AlexNet or VGG after each pooling; fc6 and fc7 are in the last block."""
    return [*_until(network.features, nn.MaxPool2d), [*_pooled(network), *network.classifier[:-1]]]


def _convnext(network: Network) -> Blocks:
    stem, first, *others = network.features
    pairs = zip(others[::2], others[1::2], strict=True)  # downsampling, stage
    return [[stem], [first], *(list(pair) for pair in pairs), [network.avgpool, *network.classifier[:-1]]]


def _efficientnet(network: Network) -> Blocks:
    *stages, last = network.features
    return [*([stage] for stage in stages), [last, *_pooled(network)]]


def _maxvit(network: Network) -> Blocks:
    return [[network.stem], *([block] for block in network.blocks), list(network.classifier[:-1])]


def _mnasnet(network: Network) -> Blocks:
    layers = list(network.layers)
    return [layers[:8], *([stack] for stack in layers[8:14]), [*layers[14:], Pool()]]


def _mobilenet(network: Network) -> Blocks:
    """Split MobileNet v2 or v3 where the width changes."""
    stem, *layers, last = network.features
    *hidden, _ = network.classifier if len(network.classifier) > 2 else [nn.Identity()]
    runs = [list(run) for _, run in groupby(layers, key=lambda layer: getattr(layer, "out_channels", None))]
    return [[stem], *runs, [last, Pool(), *hidden]]


def _squeezenet(network: Network) -> Blocks:
    return [*_until(network.features, nn.MaxPool2d), [Pool()]]


def _swin(network: Network) -> Blocks:
    embedding, first, *others = network.features
    pairs = zip(others[::2], others[1::2], strict=True)  # patch merging, stage
    last = [network.norm, network.permute, network.avgpool, network.flatten]
    return [[embedding], [first], *(list(pair) for pair in pairs), last]


def _vit(network: Network) -> Blocks:
    layers = list(network.encoder.layers)
    size = -(-len(layers) // MAX_LAYER_GROUPS)
    groups = [layers[start : start + size] for start in range(0, len(layers), size)]
    return [[Embedding(network)], *groups, [network.encoder.ln, ClassToken(), *network.heads[:-1]]]


FAMILIES: Final[dict[str, Callable[[Network], Blocks]]] = {
    "AlexNet": _alexnet,
    "ConvNeXt": _convnext,
    "EfficientNet": _efficientnet,
    "MNASNet": _mnasnet,
    "MaxVit": _maxvit,
    "MobileNetV2": _mobilenet,
    "MobileNetV3": _mobilenet,
    "SqueezeNet": _squeezenet,
    "SwinTransformer": _swin,
    "VGG": _alexnet,
    "VisionTransformer": _vit,
}
