"""Every torchvision classification model as a Backbone. Importing this package loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from automl_tl.contracts import Backbone, BackboneCard
from automl_tl_torchvision.cards import Entry, entries

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TorchvisionBackbone", "backbones"]


class TorchvisionBackbone(Backbone):
    """One model of torchvision, with one set of weights."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    @property
    def card(self) -> BackboneCard:
        """Facts about the model; no torch."""
        return self._entry.card

    def build(self, *, pretrained: bool) -> nn.Module:
        """The network as torchvision builds it.

        Raises:
            WeightsError: the weights can't be had here, or the installed torchvision doesn't know the model.
        """
        from automl_tl_torchvision.loading import build

        return build(self._entry, pretrained=pretrained)

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """Blocks by the adapter of the network's family."""
        from automl_tl_torchvision.encoders import cut

        return cut(network)

    def classifier(self, network: nn.Module) -> nn.Module | None:
        """The last linear layer; ``None`` for SqueezeNet, whose classifier is not a function of pooled features."""
        from automl_tl_torchvision.encoders import classifier

        return classifier(network)


def backbones() -> Sequence[Backbone]:
    """Every classification model with its default weights, and every other set of weights."""
    return [TorchvisionBackbone(entry) for entry in entries()]
