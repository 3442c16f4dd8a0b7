"""How a head begins: solved, scaled back, at zero or at random."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.evaluation import softmax, unit_length
from automl_tl.models.heads import ClosedFormHead, HeadShape, TrainedHead
from automl_tl.training.solve import Solution
from automl_tl.values import Head

__all__ = ["calibrated", "head_of", "new_head"]

NUM_HALVINGS = 30


def head_of(solution: Solution) -> ClosedFormHead:
    """The head that computes what ``solution`` says."""
    members, classes, width = solution.weight.shape
    head = ClosedFormHead(HeadShape(kind="solved", feature_dim=width, num_classes=classes, num_members=members))
    arrays = {
        "mean": solution.mean,
        "scale": np.asarray(solution.scale),
        "temperatures": solution.temperatures,
        "weight": solution.weight,
        "bias": solution.bias,
    }
    head.load_state_dict({name: torch.from_numpy(np.asarray(array, dtype=np.float32)) for name, array in arrays.items()})
    return head.eval()


def new_head(head: Head, *, feature_dim: int, num_classes: int) -> TrainedHead:
    """A head that has seen nothing; its last layer is zero unless ``head`` asks for random."""
    shape = HeadShape(
        kind="trained",
        feature_dim=feature_dim,
        num_classes=num_classes,
        hidden_dims=head.hidden_dims,
    )
    made = TrainedHead(shape)
    if head.start == "zero":
        nn.init.zeros_(made.last.weight)
        nn.init.zeros_(made.last.bias)
    return made


@torch.no_grad()
def calibrated(solution: Solution, features: NDArray[np.float32], labels: NDArray[np.int64]) -> ClosedFormHead:
    """The solved head, scaled so that its loss on the images it was solved on equals its loss out of fold.

    A converged head leaves no gradient to learn from and trusts itself too much; the scale keeps its direction and restores
    the energy (arXiv 2302.05779). Several members are one to the trainer: the first is taken.
    """
    head = head_of(solution)
    rows = np.arange(len(labels))
    wanted = float(-solution.out_of_fold[rows, labels].mean())
    scores = ((unit_length(features) - solution.mean) / solution.scale) @ solution.weight[0].T + solution.bias[0]
    low, high = 0.0, 1.0
    for _ in range(NUM_HALVINGS):  # the loss falls while the scale grows towards the temperature that fits best
        middle = (low + high) / 2
        loss = -float(np.log(softmax(scores * middle)[rows, labels] + 1e-12).mean())
        low, high = (middle, high) if loss > wanted else (low, middle)
    head.weight.mul_(high)
    head.bias.mul_(high)
    head.get_buffer("temperatures").fill_(1.0)
    return head
