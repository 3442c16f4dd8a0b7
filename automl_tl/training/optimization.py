"""What learns in a phase, how fast, and how the learning rates change over its steps."""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, pi
from typing import Any, Final

import torch
from torch import nn

from automl_tl.values import Phase, Recipe

__all__ = ["lr_factor", "make_optimizer", "select_parameters", "set_training_mode"]

NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)  # the first covers instance norm, too

# One-cycle as in fastai: up over 30% of the steps from 1/25, down to 1/100000 (Smith, arXiv 1803.09820).
ONE_CYCLE_WARMUP_FRACTION: Final = 0.3
ONE_CYCLE_START: Final = 1 / 25
ONE_CYCLE_END: Final = 1e-5


def select_parameters(blocks: nn.Sequential, head: nn.Module, phase: Phase) -> None:
    """Enable gradients for exactly the parameters that ``phase`` trains.

    Args:
        blocks: the encoder's blocks, from input to output.
        head: always trained.
        phase: names the trained blocks, and whether only their norm layers learn.
    """
    for index, block in enumerate(blocks):
        is_trained = index in phase.train_blocks
        for parameter in block.parameters():
            parameter.requires_grad_(is_trained and phase.parameters == "all")
        if is_trained and phase.parameters == "norm":
            for norm in (module for module in block.modules() if isinstance(module, NORM_LAYERS)):
                for parameter in norm.parameters(recurse=False):
                    parameter.requires_grad_(True)
    head.requires_grad_(True)


def set_training_mode(blocks: nn.Sequential, head: nn.Module, phase: Phase) -> None:
    """Put the trained blocks and the head in training mode, everything else in evaluation mode.

    Args:
        blocks: the encoder's blocks, from input to output.
        head: always in training mode.
        phase: names the trained blocks, and whether their batch-norm statistics are updated.
    """
    blocks.eval()
    head.train()
    for index in phase.train_blocks:
        blocks[index].train()
        if phase.batch_norm == "frozen":
            for module in blocks[index].modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


def make_optimizer(blocks: nn.Sequential, head: nn.Module, phase: Phase, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with one learning rate for the head and one per trained block.

    Each parameter group stores its peak learning rate as ``base_lr``; ``lr_factor`` scales it step by step.

    Args:
        blocks: the encoder's blocks, from input to output; ``select_parameters`` was called before.
        head: learns at ``phase.head_lr``.
        phase: gives the trained blocks and their learning rates.
        recipe: gives the weight decay.
    """
    top = len(blocks) - 1
    factors = phase.block_factors or tuple(phase.block_decay ** (top - index) for index in phase.train_blocks)
    groups = list(_parameter_groups(head, phase.head_lr, recipe.weight_decay))
    for index, factor in zip(phase.train_blocks, factors, strict=True):
        groups += _parameter_groups(blocks[index], phase.encoder_lr * factor, recipe.weight_decay)
    return torch.optim.AdamW(groups, lr=phase.head_lr)


def _parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> Iterator[dict[str, Any]]:
    """Apply weight decay to matrices and kernels, not to biases and norm layers (one dimension)."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameters, decay in (
        ([p for p in trainable if p.ndim > 1], weight_decay),
        ([p for p in trainable if p.ndim <= 1], 0.0),
    ):
        if parameters:
            yield {"params": parameters, "lr": lr, "base_lr": lr, "weight_decay": decay}


def lr_factor(phase: Phase, progress: float) -> float:
    """Factor on every peak learning rate, 0 to 1.

    Args:
        phase: gives the schedule and its warmup.
        progress: fraction of the phase's steps that are done, 0 to 1.
    """
    if phase.schedule == "one_cycle":
        return _one_cycle(progress)
    if progress < phase.warmup_fraction:
        return max(progress / phase.warmup_fraction, 1e-3)
    return _cosine(1.0, 0.0, (progress - phase.warmup_fraction) / max(1 - phase.warmup_fraction, 1e-9))


def _one_cycle(progress: float) -> float:
    if progress < ONE_CYCLE_WARMUP_FRACTION:
        return _cosine(ONE_CYCLE_START, 1.0, progress / ONE_CYCLE_WARMUP_FRACTION)
    return _cosine(1.0, ONE_CYCLE_END, (progress - ONE_CYCLE_WARMUP_FRACTION) / (1 - ONE_CYCLE_WARMUP_FRACTION))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + cos(pi * min(progress, 1.0))) / 2
