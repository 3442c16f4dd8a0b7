"""Blocks and classifiers of timm networks.

A block is a stage of the network itself or a ``Part`` of it. Blocks share the network's modules and parameters; what is
added here has no parameters of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from functools import partial
from math import isqrt
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn

from automl_tl_timm.chains import CHAINS

Network: TypeAlias = Any  # one of timm's hundred classes, which share conventions but no type
Step: TypeAlias = Callable[[Network, Tensor], Tensor]

# More layers than this are put into groups of equal size. With stem and head that makes at most twelve blocks.
MAX_SINGLE_BLOCKS: Final = 10
MAX_GROUPS: Final = 8
# Children and parameters that embed patches in a vision transformer; a network has some of them.
EMBEDDING: Final = (
    *("patch_embed", "cls_token", "reg_token", "dist_token"),
    *("pos_embed", "pos_drop", "patch_drop", "norm_pre", "rope"),
)


class Part(nn.Module):
    """A block that runs ``step(view, x)``, where ``view`` is a shallow copy of the network with the members ``names`` only.

    timm's own methods (``_pos_embed``, ``forward_head``) run on the view. A step that uses another member fails at once, so
    that each parameter stays in one block.

    Args:
        network: the whole network; it is not changed.
        names: children, parameters and buffers of the block; names that the network lacks are ignored.
        step: a module-level function or a partial of one, so that blocks can be copied and pickled.
        removed: modules at any depth that become identities in the view.
    """

    def __init__(self, network: Network, names: Collection[str], step: Step, removed: Iterable[nn.Module] = ()) -> None:
        super().__init__()
        self.view = _view(network, set(removed), names)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """Run the step on ``(B, ...)``."""
        return self.step(self.view, x)


def _view(module: nn.Module, removed: Set[nn.Module], names: Collection[str] | None = None) -> nn.Module:
    """Return ``module`` without ``removed`` and, if ``names`` is given, with these members only."""
    if module in removed:
        return nn.Identity()
    if names is None and removed.isdisjoint(module.modules()):
        return module
    view = copy.copy(module)  # shares everything; its members are replaced below
    for kind in ("_parameters", "_buffers", "_modules"):
        members = vars(module)[kind].items()
        vars(view)[kind] = {name: member for name, member in members if names is None or name in names or member is None}
    view._modules = {name: child and _view(child, removed) for name, child in view._modules.items()}
    return view


class RopeLayers(nn.Module):
    """Transformer layers with a rotary position embedding of their own, which has no parameters.

    Args:
        layers: of the network.
        rope: of the network; ``None`` without one.
        grid: of patches; ``None`` if ``rope`` knows it.
        num_prefix_tokens: if given, the grid is the square that the other tokens form.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        rope: Network,
        grid: tuple[int, int] | None = None,
        num_prefix_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.rope = copy.deepcopy(rope)
        self.grid, self.num_prefix_tokens = grid, num_prefix_tokens

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers on ``(B, N, C)``."""
        grid = self.grid
        if self.num_prefix_tokens is not None:
            side = isqrt(x.shape[1] - self.num_prefix_tokens)
            grid = (side, side)
        embedding = None
        if self.rope is not None:
            embedding = self.rope.get_embed() if grid is None else self.rope.get_embed(shape=grid)
        for layer in self.layers:
            x = layer(x, rope=embedding)
        return x


class PointwiseClassifier(nn.Module):
    """A classifier that is a 1 x 1 convolution, applied to features ``(B, feature_dim)``."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)``."""
        return torch.flatten(self.convolution(x[:, :, None, None]), 1)


class MeanOfHeads(nn.Module):
    """The mean of several heads' logits.

    Args:
        heads: each maps its features to logits.
        widths: number of consecutive features of each head; ``None``: every head takes all.
    """

    def __init__(self, heads: Iterable[nn.Module], widths: Sequence[int] | None = None) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.widths = None if widths is None else list(widths)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)`` of ``(B, feature_dim)``."""
        inputs = [x] * len(self.heads) if self.widths is None else torch.split(x, self.widths, dim=1)
        return torch.stack([head(features) for head, features in zip(self.heads, inputs, strict=True)]).mean(0)


def cut(network: Network) -> Sequence[nn.Module]:
    """Split ``network`` into blocks by its family; an unknown family is one block."""
    for ancestor in type(network).__mro__:
        if ancestor.__name__ in ADAPTERS:
            return ADAPTERS[ancestor.__name__](network)
        if ancestor.__name__ in CHAINS:
            return _cut_chain(network, CHAINS[ancestor.__name__])
    return _one_block(network)


def classifier(network: Network) -> nn.Module | None:
    """Return the head from features to logits; ``None`` without classes, or if the features do not determine the logits."""
    heads, kinds = _heads(network), {ancestor.__name__ for ancestor in type(network).__mro__}
    if not heads or kinds & {"VOLO", "EfficientViM"} or ("PoolingVisionTransformer" in kinds and len(heads) > 1):
        return None
    if len(heads) > 1:
        has_shares = kinds & {"CrossVit", "VisionTransformerDistilled"}  # each head has its own part of the features
        return MeanOfHeads(heads, [head.get_parameter("weight").shape[1] for head in heads] if has_shares else None)
    weight = getattr(heads[0], "weight", None)
    return PointwiseClassifier(heads[0]) if weight is not None and weight.ndim == 4 else heads[0]


def _heads(network: Network) -> list[nn.Module]:
    """Return what timm calls the network's classifier: one module, two if distilled, none without classes."""
    # Of these two, timm names the linear layer alone, but its features come before the norm as well.
    has_norm = type(network).__name__ in ("EfficientVitMsra", "SHViT")
    named = network.head if has_norm else network.get_classifier()
    heads = list(named) if isinstance(named, (tuple, list, nn.ModuleList)) else [named]
    heads = [inner for head in heads for inner in (head if isinstance(head, nn.ModuleList) else [head])]
    heads = [getattr(head, "fc", head) for head in heads]  # two families name the whole head, pooling included
    return [head for head in heads if isinstance(head, nn.Module) and not isinstance(head, nn.Identity)]


# Building blocks of the adapters


def _tail(network: Network, used: Collection[str], before: Sequence[str] = (), step: Step | None = None) -> nn.Module:
    """Return the last block: all that is not ``used`` but the classifier. It runs ``step``, or ``before`` and the head."""
    members = (*network._modules, *network._parameters, *network._buffers)
    names = [name for name in members if name not in used]
    return Part(network, names, step or partial(_head_features, before=tuple(before)), removed=_heads(network))


def _head_features(network: Network, x: Tensor, before: Sequence[str]) -> Tensor:
    """Call the children or methods ``before``, then the head up to the features ``(B, feature_dim)``."""
    for name in before:
        child = getattr(network, name, None)
        x = x if child is None else child(x)
    features: Tensor = network.forward_head(x, pre_logits=True)
    return features


def _sequential(modules: Sequence[nn.Module]) -> nn.Module:
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _grouped(layers: Iterable[nn.Module]) -> list[list[nn.Module]]:
    """Return ``layers`` one by one, or in groups of equal size (the last may be smaller) if they are many."""
    layers = list(layers)
    size = 1 if len(layers) <= MAX_SINGLE_BLOCKS else -(-len(layers) // MAX_GROUPS)
    return [layers[start : start + size] for start in range(0, len(layers), size)]


# Adapters: network -> blocks


def _one_block(network: Network) -> list[nn.Module]:
    return [_tail(network, (), before=("forward_features",))]


def _cut_chain(network: Network, row: str) -> list[nn.Module]:
    """Split a network whose children run one after another by its row of ``CHAINS``."""
    *segments, last = (segment.split() for segment in row.split("|"))
    blocks: list[nn.Module] = []
    for names in segments:
        if names[0].endswith("*"):
            layers = network.get_submodule(names[0].rstrip("*")).children()
            blocks += [_sequential(group) for group in _grouped(layers)]
            continue
        modules = [module for name in names if (module := _submodule(network, name)) is not None]
        blocks += [_sequential(modules)] if modules else []
    used = {name.rstrip("*").partition(".")[0] for names in segments for name in names}
    return [*blocks, _tail(network, used, before=last)]


def _submodule(network: nn.Module, name: str) -> nn.Module | None:
    try:
        return network.get_submodule(name)
    except AttributeError:
        return None


def _cut_vgg(network: Network) -> list[nn.Module]:
    """Split VGG after each pooling; fc6 and fc7 are in the last block."""
    stages: list[list[nn.Module]] = [[]]
    for layer in network.features:
        stages[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):
            stages.append([])
    return [*(_sequential(stage) for stage in stages if stage), _tail(network, ("features",))]


def _cut_transformer(
    network: Network, embed: Step, layers: Sequence[nn.Module] | None = None, finish: Step | None = None
) -> list[nn.Module]:
    """Split a vision transformer into its embedding, groups of layers, and the norm with the head."""
    layers = layers or [_sequential(group) for group in _grouped(network.blocks)]
    last = _tail(network, (*EMBEDDING, "blocks"), before=("norm",), step=finish)
    return [Part(network, EMBEDDING, embed), *layers, last]


def _embed_vit(network: Network, x: Tensor) -> Tensor:
    tokens = network._pos_embed(network.patch_embed(x))
    embedded: Tensor = network.norm_pre(network.patch_drop(tokens))
    return embedded


def _class_and_distillation_token(network: Network, x: Tensor) -> Tensor:
    """Finish DeiT with a distillation token; the features are those of both tokens, since each has a head."""
    features: Tensor = network.head_drop(network.norm(x)[:, :2].flatten(1))
    return features


def _cut_eva(network: Network) -> list[nn.Module]:
    """Split EVA, DINOv3, Perception Encoder; one block if all layers share a learned rotary embedding."""
    if getattr(network, "rope_mixed", False):
        return _one_block(network)
    grid = num_prefix_tokens = None
    if network.dynamic_img_size:
        num_prefix_tokens = network.num_prefix_tokens
    elif not hasattr(network.rope, "feat_shape"):
        grid = tuple(network.patch_embed.grid_size)
    layers = [RopeLayers(group, network.rope, grid, num_prefix_tokens) for group in _grouped(network.blocks)]
    return _cut_transformer(network, _embed_eva, layers)


def _embed_eva(network: Network, x: Tensor) -> Tensor:
    tokens, _ = network._pos_embed(network.patch_embed(x))
    embedded: Tensor = network.norm_pre(tokens)
    return embedded


def _cut_beit(network: Network) -> list[nn.Module]:
    """Split BEiT; one block if all layers share a table of relative positions."""
    if network.rel_pos_bias is not None:
        return _one_block(network)
    return _cut_transformer(network, _embed_beit)


def _embed_beit(network: Network, x: Tensor) -> Tensor:
    x = network.patch_embed(x)
    x = torch.cat((network.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
    embedded: Tensor = network.pos_drop(x if network.pos_embed is None else x + network.pos_embed)
    return embedded


# Class of a network, or of its ancestor -> adapter; looked up before CHAINS.
ADAPTERS: Final[dict[str, Callable[[Network], list[nn.Module]]]] = {
    "Beit": _cut_beit,
    "Eva": _cut_eva,
    "VGG": _cut_vgg,
    # ViT, DeiT III, hybrids, ViTamin, CLIP towers, DINOv2
    "VisionTransformer": partial(_cut_transformer, embed=_embed_vit),
    "VisionTransformerDistilled": partial(_cut_transformer, embed=_embed_vit, finish=_class_and_distillation_token),
}
