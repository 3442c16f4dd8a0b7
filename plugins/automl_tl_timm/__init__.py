"""Every timm model as a Backbone. Importing this package loads no torch; ``backbones`` reads a table of facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from automl_tl.contracts import Backbone, BackboneCard
from automl_tl_timm.cards import Entry, entries

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TimmBackbone", "backbones"]


class TimmBackbone(Backbone):
    """One model of timm, with the weights of one tag."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    @property
    def card(self) -> BackboneCard:
        """Facts about the model; no torch."""
        return self._entry.card

    def build(self, *, pretrained: bool) -> nn.Module:
        """The network as timm builds it for the card's tag.

        Raises:
            WeightsError: timm has no weights for it, or they can't be had here, or the installed timm doesn't know it.
        """
        from automl_tl_timm.loading import build

        return build(self._entry, pretrained=pretrained)

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """Blocks by the adapter of the network's family; one block where there is none."""
        from automl_tl_timm.cutting import cut

        return cut(network)

    def classifier(self, network: nn.Module) -> nn.Module | None:
        """The pretrained head; ``None`` for image towers and self-supervised models, which have no classes."""
        from automl_tl_timm.cutting import classifier

        return classifier(network)


def backbones() -> Sequence[Backbone]:
    """Every architecture with its default weights, and every tagged variant. Costs some tens of milliseconds."""
    return [TimmBackbone(entry) for entry in entries()]
