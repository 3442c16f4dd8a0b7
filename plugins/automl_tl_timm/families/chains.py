"""Families whose forward pass calls the network's children one after another: one row each.

A row lists the children in the order in which ``forward_features`` calls them. ``|`` is a boundary between blocks, ``name*``
stands for the children of ``name``, each a block or, if there are many, grouped. What follows the last boundary forms the
last block, together with ``forward_head(pre_logits=True)``. Names that a network doesn't have are passed over, and so are
those that are ``None``. The conformance tests compare every row with the network itself.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from automl_tl_timm.encoders import Network, Part, one_after_another

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor, nn

__all__ = ["CHAINS", "classifiers", "cut_chain", "grouped", "head_features", "layer_groups", "tail"]

# At most so many layers are blocks of their own; more are put into groups of equal size. With stem and head there are then
# at most twelve blocks: as many as gradual unfreezing has use for.
MAX_SINGLE_BLOCKS: Final = 10
MAX_GROUPS: Final = 8

STEM_AND_STAGES: Final = "stem | stages* |"
CHAINS: Final = {
    "ByobNet": "stem | stages* | final_conv",
    "ConvMixer": "stem | blocks* |",
    "ConvNeXt": "stem | stages* | norm_pre",
    "CPUBone": STEM_AND_STAGES,
    "CSATv2": "stem_dct | stages* |",
    "CspNet": STEM_AND_STAGES,
    "CspNext": STEM_AND_STAGES,
    "DaVit": "stem | stages* | norm_pre",
    "DenseNet": (
        "features.conv0 features.norm0 features.conv1 features.norm1 features.conv2 features.norm2 features.pool0 | "
        "features.denseblock1 features.transition1 | features.denseblock2 features.transition2 | "
        "features.denseblock3 features.transition3 | features.denseblock4 features.norm5 |"
    ),
    "DLA": "base_layer level0 level1 | level2 | level3 | level4 | level5 |",
    "DPN": "features* |",
    "EdgeNeXt": "stem | stages* | norm_pre",
    "EfficientFormer": "stem | stages* | norm",
    "EfficientFormerV2": "stem | stages* | norm",
    "EfficientNet": "conv_stem bn1 | blocks* | conv_head bn2",
    "EfficientVit": STEM_AND_STAGES,
    "EfficientVitLarge": STEM_AND_STAGES,
    "EfficientVitMsra": "patch_embed | stages* |",
    "FasterNet": "patch_embed | stages* |",
    "FastVit": "stem | stages* | final_conv",
    "FocalNet": "stem | layers* | norm",
    "GhostNet": "conv_stem bn1 act1 | blocks* |",
    "GlobalContextVit": STEM_AND_STAGES,
    "HighPerfGpuNet": STEM_AND_STAGES,
    "IFormer": STEM_AND_STAGES,
    "InceptionResnetV2": (
        "conv2d_1a conv2d_2a conv2d_2b maxpool_3a conv2d_3b conv2d_4a maxpool_5a | mixed_5b repeat | "
        "mixed_6a repeat_1 | mixed_7a repeat_2 block8 | conv2d_7b"
    ),
    "InceptionV3": (
        "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Pool1 Conv2d_3b_1x1 Conv2d_4a_3x3 Pool2 | Mixed_5b Mixed_5c Mixed_5d | "
        "Mixed_6a Mixed_6b | Mixed_6c Mixed_6d | Mixed_6e | Mixed_7a | Mixed_7b | Mixed_7c |"
    ),
    "InceptionV4": "features* |",
    "LCNetV2": STEM_AND_STAGES,
    "LowFormer": STEM_AND_STAGES,
    "MambaOut": STEM_AND_STAGES,
    "MaxxVit": "stem | stages* | norm",
    "MetaFormer": STEM_AND_STAGES,
    "MetaNeXt": STEM_AND_STAGES,
    "MlpMixer": "stem | blocks* | norm",
    "MobileNetV3": "conv_stem bn1 | blocks* |",
    "NextViT": "stem | stages* | norm",
    "NormFreeNet": "stem | stages* | final_conv final_act",
    "PyramidVisionTransformerV2": "patch_embed | stages* |",
    "RDNet": "stem | dense_stages* | norm_pre",
    "RegNet": "stem | s1 | s2 | s3 | s4 | final_conv",
    "RepGhostNet": "conv_stem bn1 act1 | blocks* |",
    "RepVit": STEM_AND_STAGES,
    "ResNet": "conv1 bn1 act1 maxpool | layer1 | layer2 | layer3 | layer4 |",
    "ResNetV2": "stem | stages* | norm",
    "RexNet": "stem | features* |",
    "SENet": "layer0 pool0 | layer1 | layer2 | layer3 | layer4 |",
    "Sequencer2d": "stem | stages* | norm",
    "SHViT": "patch_embed | stages* |",
    "StarNet": "stem | stages* | norm",
    "SwiftFormer": "stem | stages* | norm",
    "SwinTransformer": "patch_embed | layers* | norm",
    "SwinTransformerV2": "patch_embed | layers* | norm",
    "SwinTransformerV2Cr": "patch_embed | stages* |",
    "TinyVit": "patch_embed | stages* |",
    "TResNet": "body* |",
    "VovNet": STEM_AND_STAGES,
    "Xception": (
        "conv1 bn1 act1 conv2 bn2 act2 | block1 block2 block3 | block4 block5 | block6 block7 | block8 block9 | "
        "block10 block11 | block12 | conv3 bn3 act3 conv4 bn4 act4 |"
    ),
    "XceptionAligned": "stem | blocks* | act",
}


def cut_chain(network: nn.Module, row: str) -> list[nn.Module]:
    """Blocks of ``network`` by a row of ``CHAINS``."""
    *segments, last = (segment.split() for segment in row.split("|"))
    blocks = [block for names in segments for block in _blocks(network, names)]
    used = {name.rstrip("*").partition(".")[0] for names in segments for name in names}
    return [*blocks, tail(network, used, before=tuple(last))]


def tail(
    network: nn.Module,
    used: Iterable[str],
    *,
    before: tuple[str, ...] = (),
    step: Callable[[Network, Tensor], Tensor] | None = None,
    without: Iterable[nn.Module] = (),
) -> nn.Module:
    """The last block: ``before``, then the head up to the features. It owns all that is left but the classifier.

    Args:
        network: the whole network.
        used: children and parameters that other blocks own.
        before: children (or methods) to call before the head.
        step: to be done instead of ``before`` and the head.
        without: more that the features don't need, such as auxiliary heads.
    """
    taken = {*used}
    members = (*network._modules, *network._parameters, *network._buffers)
    names = [name for name in members if name not in taken]
    step = step or partial(head_features, before=before)
    return Part(network, names, step, without=[*classifiers(network), *without])


def head_features(network: Network, x: Tensor, before: tuple[str, ...] = ()) -> Tensor:
    """Features ``(B, feature_dim)`` of the output of the last stage."""
    for name in before:
        child = getattr(network, name, None)
        x = x if child is None else child(x)
    x = network.forward_head(x, pre_logits=True)
    return x


def layer_groups(layers: Iterable[nn.Module], of: int | None = None) -> list[nn.Module]:
    """Blocks of ``layers`` that are called one after another: each a block, or groups of equal size if they are many."""
    return [one_after_another(group) for group in grouped(list(layers), of)]


def classifiers(network: Network) -> list[nn.Module]:
    """What timm calls the network's classifier: one module, two for a distilled network, none without classes."""
    from torch import nn

    # Of these two timm names the linear layer alone, but what it leaves out for the features is the norm before it as well.
    with_norm = type(network).__name__ in ("EfficientVitMsra", "SHViT")
    found = network.head if with_norm else network.get_classifier()
    heads = list(found) if isinstance(found, (tuple, list, nn.ModuleList)) else [found]
    heads = [inner for head in heads for inner in (head if isinstance(head, nn.ModuleList) else [head])]
    heads = [getattr(head, "fc", head) for head in heads]  # two families name the whole head, pooling included
    return [head for head in heads if isinstance(head, nn.Module) and not isinstance(head, nn.Identity)]


def grouped(layers: Sequence[nn.Module], of: int | None = None) -> list[list[nn.Module]]:
    """``layers`` as groups of equal size (the last may be smaller), few enough to be blocks; ``of``: how many in all."""
    total = len(layers) if of is None else of
    size = 1 if total <= MAX_SINGLE_BLOCKS else -(-total // MAX_GROUPS)
    return [list(layers[start : start + size]) for start in range(0, len(layers), size)]


def _blocks(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    if names[0].endswith("*"):
        return layer_groups(network.get_submodule(names[0].rstrip("*")).children())
    present = [module for name in names if (module := _submodule(network, name)) is not None]
    return [one_after_another(present)] if present else []


def _submodule(network: nn.Module, name: str) -> nn.Module | None:
    try:
        module = network.get_submodule(name)
    except AttributeError:
        return None
    return module
