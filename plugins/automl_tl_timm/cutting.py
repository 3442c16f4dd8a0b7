"""How a timm network is taken apart: its family's adapter, else one block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl_timm.encoders import PointwiseClassifier
from automl_tl_timm.families.chains import CHAINS, classifiers, cut_chain, tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

__all__ = ["classifier", "cut"]


def cut(network: nn.Module) -> Sequence[nn.Module]:
    """Blocks of ``network``, from the image to the features."""
    for ancestor in type(network).__mro__:
        row = CHAINS.get(ancestor.__name__)
        if row is not None:
            return cut_chain(network, row)
    return [tail(network, (), before=("forward_features",))]


def classifier(network: nn.Module) -> nn.Module | None:
    """Head from features to the logits of ``network``; ``None`` where there is none."""
    heads = classifiers(network)
    if len(heads) != 1:
        return None
    weight = getattr(heads[0], "weight", None)
    return PointwiseClassifier(heads[0]) if weight is not None and weight.ndim == 4 else heads[0]
