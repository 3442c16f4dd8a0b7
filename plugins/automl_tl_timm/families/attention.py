"""Transformers with class tokens that come late, or stages that want to know their grid of patches."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from automl_tl_timm.encoders import Glue, Network, Part, one_after_another, with_token
from automl_tl_timm.families.chains import grouped, layer_groups, tail
from automl_tl_timm.families.transformers import grid_side

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["cut_cait", "cut_convit", "cut_levit", "cut_mvit", "cut_pit", "cut_twins", "cut_visformer", "cut_volo", "cut_xcit"]


def cut_cait(network: Network) -> list[nn.Module]:
    """Blocks of CaiT; the class token's own layers are in the last."""
    owned = ("patch_embed", "pos_embed", "pos_drop")
    last = tail(network, (*owned, "blocks"), before=("forward_cls", "norm"))
    return [Part(network, owned, _embed_with_positions), *layer_groups(network.blocks), last]


def _embed_with_positions(network: Network, x: Tensor) -> Tensor:
    x = network.pos_drop(network.patch_embed(x) + network.pos_embed)
    return x


def cut_convit(network: Network) -> list[nn.Module]:
    """Blocks of ConViT: local layers, then, with the class token, global ones."""
    owned = ("patch_embed", "pos_embed", "pos_drop")
    local, layers = network.local_up_to_layer, list(network.blocks)
    first, *others = grouped(layers[local:], of=len(layers))
    with_class_token = one_after_another([Part(network, ("cls_token",), _add_class_token), *first])
    return [
        Part(network, owned, _embed_with_positions if network.use_pos_embed else _embed),
        *layer_groups(layers[:local], of=len(layers)),
        with_class_token,
        *(one_after_another(group) for group in others),
        tail(network, (*owned, "cls_token", "blocks"), before=("norm",)),
    ]


def _embed(network: Network, x: Tensor) -> Tensor:
    x = network.pos_drop(network.patch_embed(x))
    return x


def _add_class_token(network: Network, x: Tensor) -> Tensor:
    return with_token(network.cls_token, x)


def cut_xcit(network: Network) -> list[nn.Module]:
    """Blocks of XCiT; the class token's layers are in the last."""
    owned = ("patch_embed", "pos_embed", "pos_drop")
    layers: list[nn.Module] = [Glue(_layers_on_grid, layers=group) for group in grouped(list(network.blocks))]
    last = tail(network, (*owned, "blocks"), before=("forward_cls", "norm"))
    return [Part(network, owned, _embed_xcit), *layers, last]


def _embed_xcit(network: Network, x: Tensor) -> Tensor:
    num_images = x.shape[0]
    x, (height, width) = network.patch_embed(x)
    if network.pos_embed is not None:
        x = x + network.pos_embed(num_images, height, width).reshape(num_images, -1, x.shape[1]).permute(0, 2, 1)
    x = network.pos_drop(x)
    return x


def _layers_on_grid(parts: Network, x: Tensor) -> Tensor:
    side = grid_side(x.shape[1])
    for layer in parts.layers:
        x = layer(x, side, side)
    return x


def cut_volo(network: Network) -> list[nn.Module]:
    """Blocks of VOLO; its head also looks at all tokens, so that the features alone don't give its logits."""
    before, (first, *others) = list(network.network[:2]), list(network.network[2:])
    positions = Part(network, ("pos_embed", "pos_drop"), _add_positions)
    used = ("patch_embed", "pos_embed", "pos_drop", "network")
    auxiliary = [] if network.aux_head is None else [network.aux_head]
    return [
        Part(network, ("patch_embed",), _embed_volo),
        *before,
        one_after_another([positions, first]),
        *others,
        tail(network, used, step=_finish_volo, without=auxiliary),
    ]


def _embed_volo(network: Network, x: Tensor) -> Tensor:
    x = network.patch_embed(x).permute(0, 2, 3, 1)
    return x


def _add_positions(network: Network, x: Tensor) -> Tensor:
    return x if network.pos_embed is None else network.pos_drop(x + network.pos_embed)


def _finish_volo(network: Network, x: Tensor) -> Tensor:
    x = x.flatten(1, 2)
    if network.post_network is not None:
        x = network.forward_cls(x)
    x = network.forward_head(network.norm(x), pre_logits=True)
    return x


def cut_mvit(network: Network) -> list[nn.Module]:
    """Blocks of MViTv2: its stages, each of which wants to know its grid."""
    owned = ("patch_embed", "cls_token", "pos_embed")
    step = partial(_stage_on_grid, num_prefix_tokens=0 if network.cls_token is None else 1)
    stages: list[nn.Module] = [Glue(step, stage=stage) for stage in network.stages]
    return [Part(network, owned, _embed_mvit), *stages, tail(network, (*owned, "stages"), before=("norm",))]


def _embed_mvit(network: Network, x: Tensor) -> Tensor:
    x, _ = network.patch_embed(x)
    if network.cls_token is not None:
        x = with_token(network.cls_token, x)
    return x if network.pos_embed is None else x + network.pos_embed


def _stage_on_grid(parts: Network, x: Tensor, *, num_prefix_tokens: int) -> Tensor:
    side = grid_side(x.shape[1] - num_prefix_tokens)
    x, _ = parts.stage(x, (side, side))
    return x


def cut_pit(network: Network) -> list[nn.Module]:
    """Blocks of PiT: its stages, with the tokens of classes in front of the patches."""
    owned = ("patch_embed", "pos_embed", "pos_drop", "cls_token")
    step = partial(_pit_stage, num_tokens=network.num_tokens)
    stages: list[nn.Module] = [Glue(step, stage=stage) for stage in network.transformers]
    finish = partial(_finish_pit, num_tokens=network.num_tokens)
    return [Part(network, owned, _embed_pit), *stages, tail(network, (*owned, "transformers"), step=finish)]


def _embed_pit(network: Network, x: Tensor) -> Tensor:
    x = network.pos_drop(network.patch_embed(x) + network.pos_embed)
    return with_token(network.cls_token, x.flatten(2).transpose(1, 2))


def _pit_stage(parts: Network, x: Tensor, *, num_tokens: int) -> Tensor:
    tokens, patches = x[:, :num_tokens], x[:, num_tokens:].transpose(1, 2)
    side = grid_side(patches.shape[2])
    patches, tokens = parts.stage((patches.reshape(*patches.shape[:2], side, side), tokens))
    return with_token(tokens, patches.flatten(2).transpose(1, 2))


def _finish_pit(network: Network, x: Tensor, *, num_tokens: int) -> Tensor:
    # Of a distilled network both tokens are features, since each has a head; timm's own pre-logits are their mean.
    x = network.head_drop(network.norm(x[:, :num_tokens]).flatten(1))
    return x


def cut_levit(network: Network) -> list[nn.Module]:
    """Blocks of LeViT."""
    stem = Part(network, ("stem",), _levit_stem)
    return [stem, *layer_groups(network.stages), tail(network, ("stem", "stages"))]


def _levit_stem(network: Network, x: Tensor) -> Tensor:
    x = network.stem(x)
    return x if network.use_conv else x.flatten(2).transpose(1, 2)


def cut_twins(network: Network) -> list[nn.Module]:
    """Blocks of Twins: its four stages, taken together from lists of their parts."""
    lists = zip(network.patch_embeds, network.pos_drops, network.blocks, network.pos_block, strict=True)
    last = len(network.blocks) - 1
    stages: list[nn.Module] = [
        Glue(partial(_twins_stage, as_image=index < last), embed=embed, drop=drop, layers=layers, positions=positions)
        for index, (embed, drop, layers, positions) in enumerate(lists)
    ]
    return [*stages, tail(network, ("patch_embeds", "pos_drops", "blocks", "pos_block"), before=("norm",))]


def _twins_stage(parts: Network, x: Tensor, *, as_image: bool) -> Tensor:
    x, size = parts.embed(x)
    x = parts.drop(x)
    for index, layer in enumerate(parts.layers):
        x = layer(x, size)
        if index == 0:
            x = parts.positions(x, size)
    return x.reshape(x.shape[0], *size, -1).permute(0, 3, 1, 2).contiguous() if as_image else x


def cut_visformer(network: Network) -> list[nn.Module]:
    """Blocks of Visformer: its three stages, each with its embedding."""
    stages = [("stem", "patch_embed1", "pos_embed1", "stage1")]
    stages += [("", f"patch_embed{number}", f"pos_embed{number}", f"stage{number}") for number in (2, 3)]
    blocks: list[nn.Module] = [Part(network, (*names, "pos_drop"), partial(_visformer_stage, names=names)) for names in stages]
    used = [name for names in stages for name in names]
    return [*blocks, tail(network, used, before=("norm",))]


def _visformer_stage(network: Network, x: Tensor, *, names: tuple[str, str, str, str]) -> Tensor:
    stem, embed, positions, stage = (getattr(network, name, None) if name else None for name in names)
    for module in (stem, embed):
        x = x if module is None else module(x)
    if positions is not None:
        x = network.pos_drop(x + positions)
    return x if stage is None else stage(x)
