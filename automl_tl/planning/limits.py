"""Constraints: check them, shortlist the backbones that satisfy them, and apply them to recipes.

Nothing is trained or downloaded here. Backbones are judged by their cards; only ``--max-latency`` needs a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Final, Literal

from automl_tl.errors import UnsatisfiableConstraintsError
from automl_tl.plugin_host import Catalog
from automl_tl.values import BackboneCard, CandidateVerdict, Constraints, Estimate, Phase, Recipe

ANY: Final = "any"  # strategy of a verdict on a backbone as such
PERMISSIVE: Final = frozenset({"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0"})
NOT_DOWNLOADED: Final = "no local weights"
NO_WEIGHTS: Final = "no pretrained weights"
NOT_LOCAL: Final = (NOT_DOWNLOADED, NO_WEIGHTS)
NOT_CONSIDERED: Final = "not considered: neither among the best on ImageNet nor the cheapest; request it with --backbone"
MAX_SHORTLISTED: Final = 3  # decision 15: differences between near-equal backbones are noise
MAX_LATENCY_RATIO: Final = 3.0  # latencies extrapolated from multiply-accumulates are off by less than this factor
# An MLP head has no closed form. On cached features an epoch costs next to nothing, so 60 are affordable.
HEAD_PHASE: Final = Phase(name="head", epochs=60, head_lr=1e-3, augmentation="none")


def _check_constraints(constraints: Constraints) -> None:
    """Reject options without exactly one strategy, and a weights file without exactly one backbone."""
    if constraints.options and len(constraints.strategies) != 1:
        raise UnsatisfiableConstraintsError(
            f"the options {constraints.options}", "Options belong to one strategy; add --strategy NAME."
        )
    if constraints.weights not in (None, "none") and len(constraints.backbones) != 1:
        raise UnsatisfiableConstraintsError(
            f"the weights {constraints.weights}", "A weights file belongs to one backbone; add --backbone NAME."
        )


def adapt_recipe(recipe: Recipe, constraints: Constraints) -> Recipe:
    """Return ``recipe`` with the requested head and weights.

    Args:
        recipe: of a strategy.
        constraints: of the user.
    """
    if constraints.weights == "none":  # random weights
        recipe = recipe.model_copy(update={"pretrained": False})
    if constraints.hidden_dims is None or constraints.hidden_dims == recipe.head.hidden_dims:
        return recipe
    start = "random" if constraints.hidden_dims else "zero"  # a zero output layer would pass no gradient to hidden layers
    head = recipe.head.model_copy(update={"hidden_dims": constraints.hidden_dims, "solver": None, "start": start})
    return recipe.model_copy(update={"head": head, "phases": recipe.phases or (HEAD_PHASE,)})


def shortlist(
    catalog: Catalog, constraints: Constraints, latency_ms: Callable[[BackboneCard], float] | None = None
) -> tuple[list[BackboneCard], list[CandidateVerdict]]:
    """Return the backbones to probe, cheapest first, and the verdicts on all others.

    All requested ones are probed, or else the cheapest and the two best on ImageNet.

    Args:
        catalog: installed backbones.
        constraints: license, size, latency, requested backbones.
        latency_ms: measures the latency of one image; absent: ``max_latency_ms`` is not checked.

    Raises:
        UnsatisfiableConstraintsError: the constraints contradict each other, or exclude every backbone.
    """
    _check_constraints(constraints)
    # 1) Cards alone: license, size, local weights. The nearest misses come first, for the error message.
    requested = [catalog.backbone(name).card for name in constraints.backbones]
    cards = requested or [backbone.card for backbone in catalog.backbones.values()]
    nearest = sorted(cards, key=lambda card: (not card.is_local, _size_mib(card)))
    reasons = {card.name: reason for card in nearest if (reason := reject_card(card, constraints)) is not None}
    possible = [card for card in cards if card.name not in reasons]
    if not possible:
        raise nothing_possible(constraints, [reject_backbone(*item) for item in reasons.items()])
    # 2) Latency, measured for as few backbones as possible.
    remaining: Sequence[BackboneCard] = possible
    if latency_ms and constraints.max_latency_ms is not None and not constraints.backbones and len(possible) > MAX_SHORTLISTED:
        remaining, too_slow = _within_latency(possible, constraints.max_latency_ms, latency_ms)
        reasons |= too_slow
    # 3) The best and the cheapest, each network once; all requested ones.
    cards = best_on_imagenet_first(remaining)
    if not constraints.backbones:
        cards = _distinct(cards)
        cheapest = min(cards, key=_compute)
        cards = [*[card for card in cards if card is not cheapest][: MAX_SHORTLISTED - 1], cheapest]
    reasons |= {card.name: NOT_CONSIDERED for card in possible if card not in cards and card.name not in reasons}
    return sorted(cards, key=_compute), [reject_backbone(*item) for item in reasons.items()]


def reject_card(card: BackboneCard, constraints: Constraints, *, may_download: bool = False) -> str | None:
    """Return why license, size or missing local weights exclude a backbone, or ``None``.

    Args:
        card: of the backbone.
        constraints: a backbone that they request may be downloaded.
        may_download: whether any other may be, too.
    """
    if constraints.license == "permissive" and not set((card.license or "").lower().split(" and ")) <= PERMISSIVE:
        return f"license {card.license or 'not stated'} is not a known permissive license"
    if constraints.max_size_mib is not None and _size_mib(card) > constraints.max_size_mib:
        return f"about {_size_mib(card):.1f} MiB; the limit is {constraints.max_size_mib:.4g}"
    if not may_download and card.name not in constraints.backbones and not card.is_local:
        return NOT_DOWNLOADED if card.weights == "download" else NO_WEIGHTS
    return None


def _size_mib(card: BackboneCard) -> float:
    """Return the size of the encoder: the weights without a classifier for ImageNet's 1,000 classes."""
    return inf if card.weights_mib is None else max(card.weights_mib - card.feature_dim * 1000 * 4 / 2**20, 0.0)


def _within_latency(
    cards: Sequence[BackboneCard], limit_ms: float, latency_ms: Callable[[BackboneCard], float]
) -> tuple[list[BackboneCard], dict[str, str]]:
    """Keep the cheapest backbone and the best ones within the limit; time only those that are near it or below."""
    cheapest = min(cards, key=_compute)
    ms_per_mac = latency_ms(cheapest) / (cheapest.num_macs or inf)
    fast, reasons = [cheapest], {}
    for card in best_on_imagenet_first(cards):
        if card is cheapest:
            continue
        if len(fast) == MAX_SHORTLISTED:
            break
        expected_ms = ms_per_mac * (card.num_macs or 0)
        if expected_ms <= MAX_LATENCY_RATIO * limit_ms:
            expected_ms = latency_ms(card)
        if expected_ms <= limit_ms:
            fast.append(card)
        else:
            reasons[card.name] = f"about {expected_ms:.4g} ms per image; the limit is {limit_ms:.4g}"
    return fast, reasons


def _distinct(cards: Sequence[BackboneCard]) -> list[BackboneCard]:
    """Keep the first of the cards that describe the same network (``same_network_as``)."""
    distinct: list[BackboneCard] = []
    for card in cards:
        names = {card.name, *card.same_network_as}
        if not any(names & {other.name, *other.same_network_as} for other in distinct):
            distinct.append(card)
    return distinct


def best_on_imagenet_first(cards: Sequence[BackboneCard]) -> list[BackboneCard]:
    """Sort by ImageNet accuracy, then by cost."""
    return sorted(cards, key=lambda card: (-(card.imagenet_top1 or 0.0), *_compute(card)))


def _compute(card: BackboneCard) -> tuple[float, str]:
    """Sort key: multiply-accumulates, then the name."""
    return (card.num_macs or inf, card.name)


def reject_backbone(name: str, reason: str, *, strategy: str = ANY) -> CandidateVerdict:
    """Return the verdict that a backbone is excluded with every strategy, or that one strategy is not tried on it.

    Args:
        name: of the backbone.
        reason: why, for the user.
        strategy: its name; ``any``: every strategy.
    """
    verdict: Literal["rejected", "not_tried"] = "rejected" if strategy == ANY else "not_tried"
    return CandidateVerdict(backbone=name, strategy=strategy, estimate=Estimate(), verdict=verdict, reason=reason)


def nothing_possible(constraints: Constraints, rejected: Sequence[CandidateVerdict]) -> UnsatisfiableConstraintsError:
    """Return the error for constraints that nothing satisfies.

    Args:
        constraints: of the user.
        rejected: verdicts, the nearest candidates first.
    """
    values = constraints.model_dump(exclude_defaults=True)
    texts = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items())
    summary = ", ".join(texts) or "the defaults (no backbone is installed)"
    backbones_first = sorted(rejected, key=lambda verdict: verdict.strategy != ANY)
    reasons = {v.backbone if v.strategy == ANY else f"{v.backbone} with {v.strategy}": v.reason for v in backbones_first}
    nearest = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:5])
    return UnsatisfiableConstraintsError(
        summary, f"Nearest: {nearest}" if nearest else "`tl plugins backbones` shows what is installed."
    )
