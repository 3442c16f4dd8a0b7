"""Several backbones as one: their features side by side, so that one head weighs what all of them see.

A linear head on such features is an average of the backbones' own heads, weighed by what helps. It is named by its members,
joined by ``+``; it is built in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from automl_tl.contracts import Backbone, BackboneCard
from automl_tl.plugin_host.isolation import LoadedBackbone

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PLUS", "ensemble"]

PLUS: Final = "+"
Number = TypeVar("Number", int, float)


def ensemble(members: Sequence[LoadedBackbone]) -> LoadedBackbone:
    """``members`` as one backbone of one block. Images come at the side of the largest and are scaled down for the others."""
    foreign = (member.plugin for member in members if not member.plugin.is_ours)
    return LoadedBackbone(next(foreign, members[0].plugin), _Ensemble(members))


class _Ensemble(Backbone):
    def __init__(self, members: Sequence[LoadedBackbone]) -> None:
        self._members = members
        self._card = _card([member.card for member in members])

    @property
    def card(self) -> BackboneCard:
        """Sums of the members' cards."""
        return self._card

    def build(self, *, pretrained: bool) -> nn.Module:
        """A network of all of them."""
        from torch import nn

        from automl_tl.plugin_host.ensemble_network import FeatureConcatenation

        networks = [member.build(pretrained=pretrained) for member in self._members]
        encoders = [nn.Sequential(*member.cut(each)) for member, each in zip(self._members, networks, strict=True)]
        return FeatureConcatenation(
            encoders, [member.card.preprocessing for member in self._members], self._card.preprocessing
        ).eval()

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """One block: it has several branches."""
        return [network]


def _card(cards: Sequence[BackboneCard]) -> BackboneCard:
    def total(of: Callable[[BackboneCard], Number | None]) -> Number | None:
        values = [value for card in cards if (value := of(card)) is not None]
        return sum(values) if len(values) == len(cards) else None

    licenses = sorted({card.license or "" for card in cards})
    return BackboneCard(
        name=PLUS.join(card.name for card in cards),
        family=PLUS.join(sorted({card.family for card in cards})),
        preprocessing=max((card.preprocessing for card in cards), key=lambda each: each.side_px),
        feature_dim=sum(card.feature_dim for card in cards),
        num_blocks=1,
        num_parameters=total(lambda card: card.num_parameters),
        num_macs=total(lambda card: card.num_macs),
        pretrained_on=PLUS.join(sorted({card.pretrained_on or "nothing" for card in cards})),
        license=" AND ".join(licenses) if all(licenses) else None,  # an SPDX expression
        weights=next((card.weights for card in cards if card.weights != "package"), "package"),
        weights_mib=total(lambda card: card.weights_mib),
        fixed_side=True,
    )
