"""Networks that carry several tensors at once, which are packed into one, ``(B, n)``, at the boundaries between blocks."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING

from automl_tl_timm.encoders import Glue, Network, Part, pack, unpack, with_token
from automl_tl_timm.families.chains import grouped, tail
from automl_tl_timm.families.transformers import grid_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

__all__ = ["classify_efficientvim", "cut_crossvit", "cut_efficientvim", "cut_hrnet", "cut_tnt"]


def cut_hrnet(network: Network) -> list[nn.Module]:
    """Blocks of HRNet: the stem, four stages of one to four branches, the head that joins them."""
    stem = ("conv1", "bn1", "act1", "conv2", "bn2", "act2")
    two, three, four = (tuple(stage[-1].get_num_in_chs()) for stage in (network.stage2, network.stage3, network.stage4))
    used = (*stem, "layer1", "transition1", "stage2", "transition2", "stage3", "transition3", "stage4")
    return [
        Part(network, stem, _hrnet_stem),
        network.layer1,
        Part(network, ("transition1", "stage2"), _hrnet_first),
        Part(network, ("transition2", "stage3"), partial(_hrnet_next, number=2, channels=two)),
        Part(network, ("transition3", "stage4"), partial(_hrnet_next, number=3, channels=three)),
        tail(network, used, step=partial(_finish_hrnet, channels=four)),
    ]


def _hrnet_stem(network: Network, x: Tensor) -> Tensor:
    x = network.act1(network.bn1(network.conv1(x)))
    x = network.act2(network.bn2(network.conv2(x)))
    return x


def _hrnet_first(network: Network, x: Tensor) -> Tensor:
    return pack(network.stage2([transition(x) for transition in network.transition1]))


def _hrnet_next(network: Network, x: Tensor, *, number: int, channels: Sequence[int]) -> Tensor:
    branches = unpack(x, _hrnet_shapes(x.shape[1], channels))
    transitions = enumerate(getattr(network, f"transition{number}"))
    # As in the library: a branch stays as it is, or is made from the lowest resolution.
    inputs = [branches[index] if not list(way.children()) else way(branches[-1]) for index, way in transitions]
    return pack(getattr(network, f"stage{number + 1}")(inputs))


def _hrnet_shapes(num_values: int, channels: Sequence[int]) -> list[tuple[int, int, int]]:
    """Shapes of the branches, each of half the side (rounded up) of the one before, that hold ``num_values`` in all."""
    side = 0
    shapes: list[tuple[int, int, int]] = []
    while sum(map(prod, shapes)) < num_values:
        side += 1
        shapes = [(width, -(-side // 2**index), -(-side // 2**index)) for index, width in enumerate(channels)]
    if sum(map(prod, shapes)) != num_values:
        raise ValueError("the branches' maps are no squares: HRNet is cut for square images only")
    return shapes


def _finish_hrnet(network: Network, x: Tensor, *, channels: Sequence[int]) -> Tensor:
    first, *others = unpack(x, _hrnet_shapes(x.shape[1], channels))
    x = network.incre_modules[0](first)
    for widen, shrink, branch in zip(network.incre_modules[1:], network.downsamp_modules, others, strict=True):
        x = widen(branch) + shrink(x)
    x = network.forward_head(network.final_layer(x), pre_logits=True)
    return x


def cut_crossvit(network: Network) -> list[nn.Module]:
    """Blocks of CrossViT: its multi-scale blocks, on two branches."""
    owned = ("patch_embed", "pos_drop", *(f"{name}_{index}" for name in ("pos_embed", "cls_token") for index in (0, 1)))
    shapes = [tuple(getattr(network, f"pos_embed_{index}").shape[1:]) for index in range(network.num_branches)]
    blocks: list[nn.Module] = [Glue(partial(_crossvit_block, shapes=shapes), block=block) for block in network.blocks]
    last = tail(network, (*owned, "blocks"), step=partial(_finish_crossvit, shapes=shapes))
    return [Part(network, owned, _embed_crossvit), *blocks, last]


def _embed_crossvit(network: Network, x: Tensor) -> Tensor:
    return pack(network._embed(x))


def _crossvit_block(parts: Network, x: Tensor, *, shapes: Sequence[tuple[int, ...]]) -> Tensor:
    return pack(parts.block(unpack(x, shapes)))


def _finish_crossvit(network: Network, x: Tensor, *, shapes: Sequence[tuple[int, ...]]) -> Tensor:
    branches = [norm(branch) for norm, branch in zip(network.norm, unpack(x, shapes), strict=True)]
    x = network.forward_head(branches, pre_logits=True)
    return x


def cut_tnt(network: Network) -> list[nn.Module]:
    """Blocks of TNT, each on pixels and patches."""
    owned = ("pixel_embed", "pixel_pos", "norm1_proj", "proj", "norm2_proj", "cls_token", "patch_pos", "pos_drop")
    patches = tuple(network.patch_pos.shape[1:])
    pixels = (network.num_patches, prod(network.pixel_pos.shape[2:]), network.pixel_pos.shape[1])
    step = partial(_tnt_layers, shapes=[pixels, patches])
    layers: list[nn.Module] = [Glue(step, layers=group) for group in grouped(list(network.blocks))]
    last = tail(network, (*owned, "blocks"), step=partial(_finish_tnt, shapes=[pixels, patches]))
    return [Part(network, owned, _embed_tnt), *layers, last]


def _embed_tnt(network: Network, x: Tensor) -> Tensor:
    num_images = x.shape[0]
    pixels = network.pixel_embed(x, network.pixel_pos)
    patches = network.norm1_proj(pixels.reshape(num_images, network.num_patches, -1))
    patches = network.norm2_proj(network.proj(patches))
    patches = network.pos_drop(with_token(network.cls_token, patches) + network.patch_pos)
    return pack([pixels.reshape(num_images, -1), patches])


def _tnt_layers(parts: Network, x: Tensor, *, shapes: Sequence[tuple[int, ...]]) -> Tensor:
    pixels, patches = unpack(x, shapes)
    pixels = pixels.flatten(0, 1)
    for layer in parts.layers:
        pixels, patches = layer(pixels, patches)
    return pack([pixels.reshape(x.shape[0], -1), patches])


def _finish_tnt(network: Network, x: Tensor, *, shapes: Sequence[tuple[int, ...]]) -> Tensor:
    _, patches = unpack(x, shapes)
    x = network.forward_head(network.norm(patches), pre_logits=True)
    return x


def cut_efficientvim(network: Network) -> list[nn.Module]:
    """Blocks of EfficientViM: its stages. What each contributes to the features travels along, pooled."""
    widths = list(network.embed_dim)
    stages: list[nn.Module] = [
        Glue(partial(_vim_stage, width=width, taken=sum(widths[:index])), stage=stage, norm=network.norm[index])
        for index, (stage, width) in enumerate(zip(network.stages, widths, strict=True))
    ]
    finish = partial(_finish_vim, width=widths[-1], taken=sum(widths))
    return [network.patch_embed, *stages, Glue(finish, norm=network.norm[-1], drop=network.head_drop)]


def _vim_parts(x: Tensor, *, width: int, taken: int) -> tuple[Tensor, Tensor]:
    side = grid_side((x.shape[1] - taken) // width)
    features, image = unpack(x, [(taken,), (width, side, side)])
    return features, image


def _vim_stage(parts: Network, x: Tensor, *, width: int, taken: int) -> Tensor:
    features, image = (None, x) if taken == 0 else _vim_parts(x, width=width, taken=taken)
    _, image, state = parts.stage(image)
    state = parts.norm(state.transpose(1, 2)).mean(1)
    return pack([state, image] if features is None else [features, state, image])


def _finish_vim(parts: Network, x: Tensor, *, width: int, taken: int) -> Tensor:
    features, image = _vim_parts(x, width=width, taken=taken)
    x = parts.drop(pack([features, parts.norm(image).flatten(2).mean(-1)]))
    return x


def classify_efficientvim(network: Network) -> nn.Module:
    """Head of EfficientViM: one linear layer per stage, weighted."""
    return Part(network, ("weights", "heads", "weights_dist", "heads_dist"), _vim_logits)


def _vim_logits(network: Network, x: Tensor) -> Tensor:
    parts = unpack(x, [(head.in_features,) for head in network.heads])
    kinds = [(network.weights, network.heads)]
    if hasattr(network, "heads_dist"):
        kinds.append((network.weights_dist, network.heads_dist))
    logits = [
        sum(weight * head(part) for weight, head, part in zip(weights.softmax(-1), heads, parts, strict=True))
        for weights, heads in kinds
    ]
    x = sum(logits[1:], logits[0]) / len(logits)
    return x
