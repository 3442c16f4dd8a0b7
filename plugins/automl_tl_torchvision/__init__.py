"""Every torchvision classification model as a backbone. Importing this package does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from automl_tl.contracts import Backbone, BackboneCard
from automl_tl_torchvision.cards import Entry, entries

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TorchvisionBackbone", "backbones"]


class TorchvisionBackbone(Backbone):
    """A torchvision model with one set of weights."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    @property
    def card(self) -> BackboneCard:
        """Metadata of the model."""
        return self._entry.card

    def build(self, *, pretrained: bool) -> nn.Module:
        """Build the network as torchvision does."""
        from automl_tl_torchvision.loading import build

        return build(self._entry, pretrained=pretrained)

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """Split the network by its family."""
        from automl_tl_torchvision.encoders import cut

        return cut(network)

    def classifier(self, network: nn.Module) -> nn.Module | None:
        """Return the last linear layer; ``None`` for SqueezeNet, whose classifier is not a function of pooled features."""
        from automl_tl_torchvision.encoders import classifier

        return classifier(network)


def backbones() -> Sequence[Backbone]:
    """Return every model with its default weights, and with every other set of weights."""
    return [TorchvisionBackbone(entry) for entry in entries()]
