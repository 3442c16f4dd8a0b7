"""Every timm classification model as a backbone. Importing this package imports neither torch nor timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from automl_tl.contracts import Backbone, BackboneCard
from automl_tl_timm.cards import Entry, entries

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TimmBackbone", "backbones"]


class TimmBackbone(Backbone):
    """A timm model with the weights of one tag."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    @property
    def card(self) -> BackboneCard:
        """Metadata of the model."""
        return self._entry.card

    def build(self, *, pretrained: bool) -> nn.Module:
        """Build the network as timm does for the card's tag."""
        from automl_tl_timm.loading import build

        return build(self._entry, pretrained=pretrained)

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """Split the network by its family; an unknown family is one block."""
        from automl_tl_timm.encoders import cut

        return cut(network)

    def classifier(self, network: nn.Module) -> nn.Module | None:
        """Return the pretrained head; ``None`` for image towers and self-supervised models, which have no classes."""
        from automl_tl_timm.encoders import classifier

        return classifier(network)


def backbones() -> Sequence[Backbone]:
    """Return every architecture with its default weights, and every tagged variant."""
    return [TimmBackbone(entry) for entry in entries()]
