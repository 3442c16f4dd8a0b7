"""Which parameters of a network learn in a phase, how fast, and how its norm layers behave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from automl_tl.values import Phase, Recipe

__all__ = ["learning_mode", "optimizer_for", "select_parameters"]

HEAD_TO_ENCODER = 10.0  # where a recipe leaves the encoder's rate open: the head learns ten times faster
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)  # instance norm is a child of the first


def select_parameters(blocks: nn.Sequential, head: nn.Module, phase: Phase) -> None:
    """Let gradients reach what learns in ``phase`` and nothing else."""
    for index, block in enumerate(blocks):
        learns = index in phase.train_blocks
        for parameter in block.parameters():
            parameter.requires_grad_(learns and phase.parameters == "all")
        if learns and phase.parameters == "norm":
            for norm in (module for module in block.modules() if isinstance(module, NORMS)):
                for parameter in norm.parameters(recurse=False):
                    parameter.requires_grad_(True)
    head.requires_grad_(True)


def learning_mode(blocks: nn.Sequential, head: nn.Module, phase: Phase) -> None:
    """Dropout on where something learns; statistics of batch norm move only if the phase says so, and only there."""
    blocks.eval()
    head.train()
    for index in phase.train_blocks:
        blocks[index].train()
        if phase.batch_norm == "frozen":
            for module in blocks[index].modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


def optimizer_for(
    blocks: nn.Sequential, head: nn.Module, phase: Phase, recipe: Recipe, *, head_lr: float
) -> torch.optim.Optimizer:
    """Optimizer over what learns: one rate per block, falling towards the input, and the head's own."""
    encoder_lr = phase.encoder_lr if phase.encoder_lr is not None else head_lr / HEAD_TO_ENCODER
    top = len(blocks) - 1
    factors = phase.block_factors or tuple(phase.block_decay ** (top - index) for index in phase.train_blocks)
    groups = list(_groups(head, head_lr, recipe.weight_decay))
    for index, factor in zip(phase.train_blocks, factors, strict=True):
        groups += _groups(blocks[index], encoder_lr * factor, recipe.weight_decay)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=head_lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    return torch.optim.AdamW(groups, lr=head_lr)


def _groups(module: nn.Module, rate: float, weight_decay: float) -> Iterator[dict[str, Any]]:
    """Matrices and kernels decay, biases and norm layers (one dimension) don't."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameters, decay in (
        ([p for p in learning if p.ndim > 1], weight_decay),
        ([p for p in learning if p.ndim <= 1], 0.0),
    ):
        if parameters:
            yield {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay}
