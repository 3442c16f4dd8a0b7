"""Several backbones as one, with concatenated features. A linear head on them averages and weighs the backbones' own heads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from automl_tl.contracts import Backbone, BackboneCard, Preprocessing
from automl_tl.plugin_host.isolation import PLUS, LoadedBackbone

Number = TypeVar("Number", int, float)


class Ensemble(LoadedBackbone):
    """Backbones as one backbone of one block, for images of the largest member's side.

    Args:
        members: at least one.
    """

    def __init__(self, members: Sequence[LoadedBackbone]) -> None:
        third_party = (member.plugin for member in members if not member.plugin.is_built_in)
        super().__init__(next(third_party, members[0].plugin), _Ensemble(members))
        self.members = tuple(members)


class FeatureConcatenation(nn.Module):
    """The concatenation of each encoder's features, scaled to unit length, unless ``keep_lengths`` was called.

    Args:
        encoders: the members.
        preprocessings: of the members.
        preprocessing: of the images that the ensemble receives.
    """

    def __init__(
        self, encoders: Sequence[nn.Module], preprocessings: Sequence[Preprocessing], preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.keeps_lengths = False
        self.sides_px = [member.side_px for member in preprocessings]
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        for index, member in enumerate(preprocessings):  # from the ensemble's normalization to the member's
            own_mean, own_std = torch.tensor(member.mean), torch.tensor(member.std)
            self.register_buffer(f"factor_{index}", (std / own_std).view(1, 3, 1, 1), persistent=False)
            self.register_buffer(f"offset_{index}", ((mean - own_mean) / own_std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images ``(B, 3, S, S)`` to features ``(B, sum of the members' feature_dim)``."""
        features = []
        for index, (encoder, side_px) in enumerate(zip(self.encoders, self.sides_px, strict=True)):
            x = images
            if side_px != images.shape[-1]:
                x = functional.interpolate(images, size=(side_px, side_px), mode="bilinear", align_corners=False)
            x = x * getattr(self, f"factor_{index}") + getattr(self, f"offset_{index}")
            features.append(encoder(x) if self.keeps_lengths else functional.normalize(encoder(x), dim=1))
        return torch.cat(features, dim=1)

    def extra_repr(self) -> str:
        """Tell encoders of equal weights apart, whose digest is that of their printed layers and weights."""
        return "lengths are kept" if self.keeps_lengths else ""


def keep_lengths(encoder: nn.Sequential) -> FeatureConcatenation:
    """Let an ensemble's encoder keep the lengths of its members' features, as an averaged head needs them; return its block."""
    (concatenation,) = encoder
    if not isinstance(concatenation, FeatureConcatenation):
        raise TypeError(f"expected the encoder of an ensemble, found {type(concatenation).__name__}")
    concatenation.keeps_lengths = True
    return concatenation


class _Ensemble(Backbone):
    def __init__(self, members: Sequence[LoadedBackbone]) -> None:
        self._members = members
        self._card = _card([member.card for member in members])

    @property
    def card(self) -> BackboneCard:
        return self._card

    def build(self, *, pretrained: bool) -> nn.Module:
        networks = [member.build(pretrained=pretrained) for member in self._members]
        encoders = [member.blocks(network) for member, network in zip(self._members, networks, strict=True)]
        preprocessings = [member.card.preprocessing for member in self._members]
        return FeatureConcatenation(encoders, preprocessings, self._card.preprocessing).eval()

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        return [network]


def _card(cards: Sequence[BackboneCard]) -> BackboneCard:
    licenses = sorted({card.license or "" for card in cards})
    return BackboneCard(
        name=PLUS.join(card.name for card in cards),
        family=PLUS.join(sorted({card.family for card in cards})),
        preprocessing=max((card.preprocessing for card in cards), key=lambda preprocessing: preprocessing.side_px),
        feature_dim=sum(card.feature_dim for card in cards),
        num_blocks=1,
        num_parameters=_total(card.num_parameters for card in cards),
        num_macs=_total(card.num_macs for card in cards),
        pretrained_on=PLUS.join(sorted({card.pretrained_on or "nothing" for card in cards})),
        license=" AND ".join(licenses) if all(licenses) else None,  # an SPDX expression
        weights=next((card.weights for card in cards if card.weights != "package"), "package"),
        weights_mib=_total(card.weights_mib for card in cards),
        fixed_side=True,
    )


def _total(numbers: Iterable[Number | None]) -> Number | None:
    """Sum ``numbers``; ``None`` if one is unknown."""
    total = list(numbers)
    return None if None in total else sum(number for number in total if number is not None)
