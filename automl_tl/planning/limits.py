"""Shortlist backbones by their cards and the constraints, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Final

from automl_tl.errors import UnsatisfiableConstraintsError
from automl_tl.plugin_host import Catalog, LoadedBackbone
from automl_tl.values import BackboneCard, Constraints

__all__ = [
    "NOT_HERE",
    "SHORTLIST",
    "backbones_to_look_at",
    "best_first",
    "effort",
    "nothing_possible",
    "possible_cards",
    "refusal",
    "shortlist",
]

PERMISSIVE: Final = frozenset({"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0"})
LOCAL: Final = frozenset({"package", "cached", "file"})
NOT_DOWNLOADED: Final = "no local weights"
NO_WEIGHTS: Final = "no pretrained weights"
NOT_HERE: Final = (NOT_DOWNLOADED, NO_WEIGHTS)
SHORTLIST: Final = 3  # planner notes, section 7: telling near-equal backbones apart is noise, so few are enough


def asked_backbones(catalog: Catalog, constraints: Constraints) -> Mapping[str, LoadedBackbone]:
    """Those the user asked for, else all.

    Raises:
        UnknownBackboneError: no installed plugin provides one of them.
    """
    if constraints.backbones:
        return {name: catalog.backbone(name) for name in constraints.backbones}
    return catalog.backbones


def refusal(card: BackboneCard, constraints: Constraints) -> str | None:
    """Why a backbone is out, or ``None``. One that was asked for is refused by the other constraints alone."""
    if constraints.license == "permissive" and not set((card.license or "").lower().split(" and ")) <= PERMISSIVE:
        return f"license {card.license or 'not stated'} is not a known permissive license"
    if constraints.max_size_mib is not None and _size_mib(card) > constraints.max_size_mib:
        return f"about {_size_mib(card):.1f} MiB; the limit is {constraints.max_size_mib:.4g}"
    if card.name not in constraints.backbones and card.weights not in LOCAL:
        return NOT_DOWNLOADED if card.weights == "download" else NO_WEIGHTS
    return None


def _size_mib(card: BackboneCard) -> float:
    """Of the encoder: the weights without a classifier of ImageNet's thousand classes."""
    return inf if card.weights_mib is None else max(card.weights_mib - card.feature_dim * 1000 * 4 / 2**20, 0.0)


def shortlist(cards: Sequence[BackboneCard], constraints: Constraints) -> list[BackboneCard]:
    """The few to look at, cheapest first: all that were asked for, else the best on ImageNet and the cheapest.

    A network that was named twice (``same_network_as``) is looked at once.
    """
    chosen: list[BackboneCard] = []
    for card in best_first(cards):
        same = {card.name, *card.same_network_as}
        if not any(same & {other.name, *other.same_network_as} for other in chosen):
            chosen.append(card)
    if not constraints.backbones:
        cheapest = min(chosen, key=effort)
        others = [card for card in chosen if card is not cheapest]
        chosen = [*others[: SHORTLIST - 1], cheapest]
    return sorted(chosen, key=effort)


def best_first(cards: Sequence[BackboneCard]) -> list[BackboneCard]:
    """Sort by ImageNet accuracy."""
    return sorted(cards, key=lambda card: (-(card.imagenet_top1 or 0.0), *effort(card)))


def possible_cards(catalog: Catalog, constraints: Constraints) -> tuple[list[BackboneCard], dict[str, str]]:
    """Cards of the backbones that nothing speaks against yet, and of the others by name what does, the nearest first.

    Raises:
        UnknownBackboneError, UnsatisfiableConstraintsError: there is none.
    """
    asked = asked_backbones(catalog, constraints)
    nearest = sorted(asked.items(), key=lambda item: (item[1].card.weights not in LOCAL, _size_mib(item[1].card)))
    refused = {name: reason for name, each in nearest if (reason := refusal(each.card, constraints)) is not None}
    cards = [each.card for name, each in asked.items() if name not in refused]
    if not cards:
        raise nothing_possible(constraints, refused)
    return cards, refused


def backbones_to_look_at(catalog: Catalog, constraints: Constraints) -> list[str]:
    """Names of the few that a plan would look at, cheapest first.

    Raises:
        UnknownBackboneError, UnsatisfiableConstraintsError: there is none.
    """
    cards, _ = possible_cards(catalog, constraints)
    return [card.name for card in shortlist(cards, constraints)]


def effort(card: BackboneCard) -> tuple[float, str]:
    """Sort key for cards, cheapest first."""
    return (card.num_macs or inf, card.name)


def nothing_possible(constraints: Constraints, refused: Mapping[str, str]) -> UnsatisfiableConstraintsError:
    """Return the error for constraints that nothing satisfies, with the nearest candidates."""
    said = constraints.model_dump(exclude_defaults=True)
    spoken = ", ".join(f"{key} {value}" for key, value in said.items()) or "the defaults (no backbone is installed)"
    listed = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:5])
    return UnsatisfiableConstraintsError(
        spoken, f"Nearest: {listed}" if listed else "`tl plugins backbones` shows what is installed."
    )
