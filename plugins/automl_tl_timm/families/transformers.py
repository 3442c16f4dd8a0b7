"""Plain vision transformers: an embedding, a stack of layers, a norm with the head.

What differs is the glue: where tokens are added, and what a layer wants to know besides its input. Where that is the grid of
patches, it is taken from the number of tokens, so images must be square.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from math import isqrt
from typing import TYPE_CHECKING

from automl_tl_timm.encoders import Glue, Network, Part, with_token
from automl_tl_timm.families.chains import grouped, layer_groups, tail

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

__all__ = [
    "cut_beit",
    "cut_distilled_vit",
    "cut_eva",
    "cut_hiera",
    "cut_hieradet",
    "cut_naflex",
    "cut_relpos",
    "cut_sam",
    "cut_vit",
    "grid_side",
    "whole",
]

# What an embedding may own; a network has some of these.
EMBEDDING = (
    *("patch_embed", "cls_token", "reg_token", "dist_token", "pos_embed", "pos_drop", "patch_drop", "norm_pre"),
    *("pos_embed_win", "pos_embed_window", "pos_embed_spatial", "pos_embed_temporal", "unroll", "embeds", "rope"),
)


def whole(network: nn.Module) -> list[nn.Module]:
    """One block, for networks whose parts can't be separated."""
    return [tail(network, (), before=("forward_features",))]


def grid_side(num_patches: int) -> int:
    """Side of the square grid of ``num_patches`` patches."""
    side = isqrt(num_patches)
    if side * side != num_patches:
        raise ValueError(f"{num_patches} patches are no square grid: this backbone is cut for square images only")
    return side


def _cut(
    network: Network,
    embed: Callable[[Network, Tensor], Tensor],
    *,
    layers: list[nn.Module] | None = None,
    finish: Callable[[Network, Tensor], Tensor] | None = None,
) -> list[nn.Module]:
    """Embedding, groups of ``network.blocks``, norm with head; ``layers`` where a layer wants more than its input."""
    last = tail(network, (*EMBEDDING, "blocks"), before=("norm",), step=finish)
    return [Part(network, EMBEDDING, embed), *(layers or layer_groups(network.blocks)), last]


def cut_vit(network: Network) -> list[nn.Module]:
    """Blocks of ViT, DeiT III, hybrids, ViTamin, CLIP towers, DINOv2 ..."""
    return _cut(network, _embed_vit)


def _embed_vit(network: Network, x: Tensor) -> Tensor:
    x = network.patch_embed(x)
    x = network._pos_embed(x)
    x = network.norm_pre(network.patch_drop(x))
    return x


def cut_distilled_vit(network: Network) -> list[nn.Module]:
    """Blocks of DeiT with a distillation token; the features are both tokens', since each has a head."""
    return _cut(network, _embed_vit, finish=_both_tokens)


def _both_tokens(network: Network, x: Tensor) -> Tensor:
    x = network.norm(x)
    x = network.head_drop(x[:, :2].flatten(1))
    return x


def cut_eva(network: Network) -> list[nn.Module]:
    """Blocks of EVA, DINOv3, Perception Encoder ...; one where the rotary embedding is learned, since all layers share it."""
    if getattr(network, "rope_mixed", False):
        return whole(network)
    step = partial(_layers_with_rope, shape=None)
    if network.dynamic_img_size:
        step = partial(_layers_with_rope_of_grid, num_prefix_tokens=network.num_prefix_tokens)
    elif not hasattr(network.rope, "feat_shape"):
        step = partial(_layers_with_rope, shape=tuple(network.patch_embed.grid_size))
    # Without parameters, and with buffers that no file keeps, a rotary embedding can be each block's own.
    layers: list[nn.Module] = [Glue(step, layers=group, rope=deepcopy(network.rope)) for group in grouped(list(network.blocks))]
    return _cut(network, _embed_eva, layers=layers)


def _embed_eva(network: Network, x: Tensor) -> Tensor:
    x, _ = network._pos_embed(network.patch_embed(x))
    x = network.norm_pre(x)
    return x


def _layers_with_rope(parts: Network, x: Tensor, *, shape: tuple[int, int] | None) -> Tensor:
    rope = None
    if parts.rope is not None:
        rope = parts.rope.get_embed() if shape is None else parts.rope.get_embed(shape=shape)
    for layer in parts.layers:
        x = layer(x, rope=rope)
    return x


def _layers_with_rope_of_grid(parts: Network, x: Tensor, *, num_prefix_tokens: int) -> Tensor:
    side = grid_side(x.shape[1] - num_prefix_tokens)
    return _layers_with_rope(parts, x, shape=(side, side))


def cut_naflex(network: Network) -> list[nn.Module]:
    """Blocks of NaFlexViT for images of one size; one block with a rotary embedding."""
    if network.rope is not None:
        return whole(network)
    return _cut(network, _embed_naflex)


def _embed_naflex(network: Network, x: Tensor) -> Tensor:
    x = network._forward_embeds(x, patch_coord=None, patch_valid=None, attn_mask=None)["patches"]
    return x


def cut_beit(network: Network) -> list[nn.Module]:
    """Blocks of BEiT; one where all layers share a table of relative positions."""
    if network.rel_pos_bias is not None:
        return whole(network)
    return _cut(network, _embed_beit)


def _embed_beit(network: Network, x: Tensor) -> Tensor:
    x = with_token(network.cls_token, network.patch_embed(x))
    x = network.pos_drop(x if network.pos_embed is None else x + network.pos_embed)
    return x


def cut_relpos(network: Network) -> list[nn.Module]:
    """Blocks of ViT with relative positions; one where all layers share them."""
    if network.shared_rel_pos is not None:
        return whole(network)
    return _cut(network, _embed_relpos)


def _embed_relpos(network: Network, x: Tensor) -> Tensor:
    x = network.patch_embed(x)
    return x if network.cls_token is None else with_token(network.cls_token, x)


def cut_sam(network: Network) -> list[nn.Module]:
    """Blocks of Segment Anything's image encoder."""
    return _cut(network, _embed_sam, finish=_finish_sam)


def _embed_sam(network: Network, x: Tensor) -> Tensor:
    from timm.layers.pos_embed import resample_abs_pos_embed_nhwc

    x = network.patch_embed(x)
    if network.pos_embed is not None:
        x = x + resample_abs_pos_embed_nhwc(network.pos_embed, x.shape[1:3])
    x = network.norm_pre(network.patch_drop(network.pos_drop(x)))
    return x


def _finish_sam(network: Network, x: Tensor) -> Tensor:
    x = network.neck(x.permute(0, 3, 1, 2))
    x = network.forward_head(x, pre_logits=True)
    return x


def cut_hiera(network: Network) -> list[nn.Module]:
    """Blocks of Hiera, without masks."""
    return _cut(network, _embed_hiera)


def _embed_hiera(network: Network, x: Tensor) -> Tensor:
    x = network._pos_embed(network.patch_embed(x, mask=None))
    x = network.unroll(x)
    return x


def cut_hieradet(network: Network) -> list[nn.Module]:
    """Blocks of Segment Anything 2's Hiera."""
    return _cut(network, _embed_hieradet)


def _embed_hieradet(network: Network, x: Tensor) -> Tensor:
    x = network._pos_embed(network.patch_embed(x))
    return x
