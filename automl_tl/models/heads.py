"""Heads: small networks from features to class scores, saved in ``head.safetensors``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from automl_tl.values import Value


class HeadShape(Value):
    """What is needed to build a head before its tensors are loaded. ``solved`` is the closed-form head."""

    kind: Literal["solved", "trained", "averaged"]
    feature_dim: int = Field(gt=0)
    num_classes: int = Field(ge=2)
    num_members: int = Field(default=1, ge=1, description="closed-form: number of linear maps whose probabilities are averaged")
    hidden_dims: tuple[int, ...] = ()
    dropout: float = 0.0  # always 0; the model digest covers it
    heads: tuple[HeadShape, ...] = Field(default=(), description="averaged: one for each member of the ensemble")


class ClosedFormHead(nn.Module):
    """Mean of the probabilities of one or more linear maps on normalized features.

    Features are scaled to unit length, centered, and divided by one global scale; a scale per dimension costs accuracy with
    few images (decision 5).
    """

    mean: Tensor
    scale: Tensor
    temperatures: Tensor

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        members, classes, width = shape.num_members, shape.num_classes, shape.feature_dim
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("temperatures", torch.ones(members))
        self.weight = nn.Parameter(torch.zeros(members, classes, width))
        self.bias = nn.Parameter(torch.zeros(members, classes))

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, D)`` to log-probabilities ``(B, C)``."""
        temperatures = self.temperatures
        normalized = (functional.normalize(features, dim=1) - self.mean) / self.scale
        scores = torch.einsum("bd,kcd->bkc", normalized, self.weight) + self.bias
        if len(temperatures) == 1:
            return functional.log_softmax(scores[:, 0] / temperatures, dim=1)
        members = functional.log_softmax(scores / temperatures[:, None], dim=2)
        return torch.logsumexp(members, dim=1) - torch.log(torch.tensor(float(len(temperatures))))


class TrainedHead(nn.Module):
    """A linear layer, or an MLP with ReLU, on raw features."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        widths = (shape.feature_dim, *shape.hidden_dims)
        layers: list[nn.Module] = []
        for width_in, width in pairwise(widths):
            layers += [nn.Linear(width_in, width), nn.ReLU(inplace=True)]
        self.hidden = nn.Sequential(*layers)
        self.last = nn.Linear(widths[-1], shape.num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, D)`` to logits ``(B, C)``."""
        logits: Tensor = self.last(self.hidden(features))
        return logits


class AveragedHead(nn.Module):
    """Mean of the probabilities of several heads, each for the features of one member of an ensemble."""

    temperatures: Tensor

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        self.heads = nn.ModuleList(build_head(head) for head in shape.heads)
        self.widths = [head.feature_dim for head in shape.heads]
        self.register_buffer("temperatures", torch.ones(len(shape.heads)))

    def forward(self, features: Tensor) -> Tensor:
        """Map the concatenated features of the members, at their own lengths, ``(B, D)``, to log-probabilities ``(B, C)``."""
        parts = torch.split(features, self.widths, dim=1)
        logits = torch.stack([head(part) for head, part in zip(self.heads, parts, strict=True)], dim=1)
        members = functional.log_softmax(logits / self.temperatures[:, None], dim=2)
        return torch.logsumexp(members, dim=1) - torch.log(torch.tensor(float(len(self.widths))))


def average_heads(heads: Sequence[AnyHead], temperatures: Sequence[float]) -> AveragedHead:
    """Return the mean of the probabilities of ``heads``.

    Args:
        heads: one for each member of an ensemble.
        temperatures: that their logits are divided by.
    """
    shapes = tuple(head.shape for head in heads)
    width = sum(shape.feature_dim for shape in shapes)
    average = AveragedHead(HeadShape(kind="averaged", feature_dim=width, num_classes=shapes[0].num_classes, heads=shapes))
    for ours, head in zip(average.heads, heads, strict=True):
        ours.load_state_dict(head.state_dict())
    average.temperatures.copy_(torch.tensor(temperatures))
    return average.eval()


@torch.no_grad()
def shift_logits(head: SingleHead, shift: NDArray[np.float64]) -> None:
    """Subtract a constant from each logit of a head, in its bias.

    Args:
        head: with one linear map.
        shift: ``(C,)``.
    """
    bias = head.bias if isinstance(head, ClosedFormHead) else head.last.bias
    bias.sub_(torch.from_numpy(shift).to(bias))


SingleHead = ClosedFormHead | TrainedHead
AnyHead = SingleHead | AveragedHead


def build_head(shape: HeadShape) -> AnyHead:
    """Build a head of ``shape`` whose tensors are not loaded yet."""
    if shape.kind == "averaged":
        return AveragedHead(shape)
    return ClosedFormHead(shape) if shape.kind == "solved" else TrainedHead(shape)
