"""Convolutional and mixed networks whose stages need a little glue."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from automl_tl_timm.encoders import Glue, Network, Part, one_after_another, with_token
from automl_tl_timm.families.chains import layer_groups, tail
from automl_tl_timm.families.transformers import whole

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["cut_coat", "cut_mobilenetv5", "cut_nest", "cut_selecsls", "cut_vgg"]


def cut_vgg(network: Network) -> list[nn.Module]:
    """Blocks of VGG: up to each pooling; the first two layers of what the paper calls its classifier are in the last."""
    from torch import nn

    stages: list[list[nn.Module]] = [[]]
    for layer in network.features:
        stages[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):
            stages.append([])
    blocks = [one_after_another(stage) for stage in stages if stage]
    return [*blocks, tail(network, ("features",), step=_finish_vgg)]


def _finish_vgg(network: Network, x: Tensor) -> Tensor:
    x = network.forward_head(x, pre_logits=True)
    return x


def cut_nest(network: Network) -> list[nn.Module]:
    """Blocks of NesT: its levels."""
    stem = Part(network, ("patch_embed",), _nest_stem)
    return [stem, *layer_groups(network.levels), tail(network, ("patch_embed", "levels"), step=_finish_nest)]


def _nest_stem(network: Network, x: Tensor) -> Tensor:
    x = network.patch_embed(x)
    return x


def _finish_nest(network: Network, x: Tensor) -> Tensor:
    x = network.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    x = network.forward_head(x, pre_logits=True)
    return x


def cut_selecsls(network: Network) -> list[nn.Module]:
    """Blocks of SelecSLS: runs of layers that share a skip connection, which starts anew with each run."""
    runs: list[list[nn.Module]] = []
    for layer in network.features:
        if layer.is_first:
            runs.append([])
        runs[-1].append(layer)
    stages: list[nn.Module] = [Glue(_selecsls_stage, layers=run) for run in runs]
    return [network.stem, *stages, tail(network, ("stem", "features", "from_seq"), before=("head",))]


def _selecsls_stage(parts: Network, x: Tensor) -> Tensor:
    pair = [x]
    for layer in parts.layers:
        pair = layer(pair)
    return pair[0]


def cut_mobilenetv5(network: Network) -> list[nn.Module]:
    """Blocks of MobileNet V5: its stages; from the first of those that its multi-scale adapter joins on, one block."""
    if network.msfa is None:
        return [network.conv_stem, *layer_groups(network.blocks), tail(network, ("conv_stem", "blocks"))]
    first = min(network.msfa_indices)  # 0 is the stem
    joined = Glue(
        partial(_joined, taken=[index - first for index in network.msfa_indices]),
        stages=list(network.blocks)[first:],
        adapter=network.msfa,
    )
    return [
        network.conv_stem,
        *layer_groups(list(network.blocks)[:first]),
        joined,
        tail(network, ("conv_stem", "blocks", "msfa")),
    ]


def _joined(parts: Network, x: Tensor, *, taken: list[int]) -> Tensor:
    outputs = [x]
    for stage in parts.stages:
        outputs.append(stage(outputs[-1]))
    x = parts.adapter([outputs[index] for index in taken])
    return x


def cut_coat(network: Network) -> list[nn.Module]:
    """Blocks of CoaT-Lite: its four serial stages. One block for CoaT, whose scales exchange with shared modules."""
    if network.parallel_blocks is not None:
        return whole(network)
    stages: list[nn.Module] = []
    used: list[str] = []
    for number in (1, 2, 3, 4):
        names = tuple(f"{name}{number}" for name in ("patch_embed", "cls_token", "cpe", "crpe", "serial_blocks"))
        grid = getattr(network, f"patch_embed{number - 1}").grid_size if number > 1 else None
        stages.append(Part(network, names, partial(_coat_stage, number=number, grid=grid)))
        used += names
    return [*stages, tail(network, used, step=_finish_coat)]


def _coat_stage(network: Network, x: Tensor, *, number: int, grid: tuple[int, int] | None) -> Tensor:
    embed = getattr(network, f"patch_embed{number}")
    if grid is not None:
        x = x[:, 1:].reshape(x.shape[0], *grid, -1).permute(0, 3, 1, 2).contiguous()
    x = with_token(getattr(network, f"cls_token{number}"), embed(x))
    for layer in getattr(network, f"serial_blocks{number}"):
        x = layer(x, size=embed.grid_size)
    return x


def _finish_coat(network: Network, x: Tensor) -> Tensor:
    x = network.forward_head(network.norm4(x), pre_logits=True)
    return x
