"""The decision: which backbone and which strategy, by a stated rule, with a reason for the choice and for each rejection.

Until evidence on the images themselves is gathered, the rule knows cards alone: among the candidates that satisfy every
wish and whose features can be computed in time, the backbone with the best ImageNet accuracy, and on it the strategy with the
best expected gain; the simpler wins a tie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Final

from automl_tl.catalog import Catalog, OfferedBackbone, OfferedStrategy
from automl_tl.contracts import Expectation, Situation
from automl_tl.errors import ImpossibleWishError
from automl_tl.planning.wishes import adapted, check_wishes
from automl_tl.values import BackboneCard, Candidate, DatasetProfile, Estimate, Plan, Wishes

__all__ = ["make_plan", "situation_of"]

DEFAULT_BUDGET_S: Final = 120.0  # ../shared/planner-notes 7: of patience on a CPU, where no budget is given
FEATURE_SHARE: Final = 0.5  # of the budget may go into computing features once
MACS_PER_S: Final = 8e9  # EfficientNet-Lite on two laptop-class cores, eager; DECISIONS 6
PERMISSIVE: Final = frozenset({"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0"})
Expected = tuple[OfferedStrategy, Expectation]
LOCAL: Final = frozenset({"package", "cached", "file"})


def make_plan(profile: DatasetProfile, catalog: Catalog, wishes: Wishes) -> Plan:
    """Plan for ``profile`` from what ``catalog`` offers.

    Raises:
        UnknownBackboneError, UnknownStrategyError: a wish names what nobody offers.
        ImpossibleWishError: no candidate satisfies every wish.
    """
    check_wishes(wishes)
    refused = {name: _refusal(backbone.card, profile, wishes) for name, backbone in _asked(catalog, wishes).items()}
    possible = [name for name, reason in refused.items() if reason is None]
    if not possible:
        raise ImpossibleWishError(_spoken(wishes), _nearest(refused))
    best = max(possible, key=lambda name: _merit(catalog.backbones[name].card))
    backbone = catalog.backbone(best)
    situation = situation_of(profile, backbone)
    suited, unsuited = _strategies(catalog, wishes, situation)
    strategy, expectation = max(suited, key=lambda pair: (pair[1].gain, -pair[1].gain_sd))
    recipe = adapted(strategy.recipe(situation), wishes)
    candidates = [
        Candidate(
            backbone=name,
            strategy=strategy.name,
            estimate=_estimate(catalog.backbones[name].card, profile),
            verdict="chosen" if name == best else "rejected",
            reason=reason or ("best by the rule" if name == best else f"ImageNet accuracy below that of {best}"),
        )
        for name, reason in refused.items()
        if catalog.backbones[name].card.weights in LOCAL or name in wishes.backbones
    ]
    others = [pair for pair in suited if pair[0] is not strategy]
    candidates += _other_strategies(best, others, unsuited)
    return Plan(
        backbone=best,
        strategy=strategy.name,
        strategy_options=strategy.options,
        recipe=recipe,
        preprocessing=backbone.card.preprocessing,
        wishes=wishes,
        profile=profile,
        expected=_estimate(backbone.card, profile),
        reasons=(_why_backbone(backbone.card, len(possible)), f"{strategy.name}: {expectation.why}"),
        candidates=tuple(sorted(candidates, key=lambda candidate: candidate.verdict != "chosen")),
    )


def situation_of(profile: DatasetProfile, backbone: OfferedBackbone) -> Situation:
    """What a strategy is told; the network is built only if its card doesn't count the blocks."""
    card = backbone.card
    return Situation(
        num_images=profile.num_images,
        num_classes=profile.num_classes,
        min_images_per_class=profile.min_images_per_class,
        imbalance=profile.imbalance,
        num_blocks=card.num_blocks or len(backbone.cut(backbone.build(pretrained=False))),
        feature_dim=card.feature_dim,
        image_side_px=card.preprocessing.side_px,
    )


def _asked(catalog: Catalog, wishes: Wishes) -> Mapping[str, OfferedBackbone]:
    if wishes.backbones:
        return {name: catalog.backbone(name) for name in wishes.backbones}
    return catalog.backbones


def _refusal(card: BackboneCard, profile: DatasetProfile, wishes: Wishes) -> str | None:
    """Why a backbone is out, or ``None``. A pinned backbone is refused by hard limits alone."""
    pinned = card.name in wishes.backbones
    if wishes.licence == "permissive" and (card.licence or "").lower() not in PERMISSIVE:
        return f"licence {card.licence or 'not stated'} is not known to be permissive"
    if wishes.max_size_mib is not None and (card.weights_mib or inf) > wishes.max_size_mib:
        return f"{card.weights_mib or '?'} MiB, allowed are {wishes.max_size_mib}"
    if not pinned and card.weights not in LOCAL:
        return "weights are not on this machine" if card.weights == "download" else "no pretrained weights"
    seconds = _feature_seconds(card, profile)
    allowed = FEATURE_SHARE * (wishes.budget_s or DEFAULT_BUDGET_S)
    if not pinned and seconds is not None and seconds > allowed and not _is_smallest(card):
        return f"features would take about {seconds:.0f} s, {allowed:.0f} s are allowed for"
    return None


def _is_smallest(card: BackboneCard) -> bool:
    return (card.num_macs or inf) <= 0.4e9


def _feature_seconds(card: BackboneCard, profile: DatasetProfile) -> float | None:
    if card.num_macs is None:
        return None
    return (profile.num_images + profile.num_test_images) * card.num_macs / MACS_PER_S


def _merit(card: BackboneCard) -> tuple[float, int]:
    return (card.imagenet_top1 or 0.0, -(card.num_parameters or 0))


def _estimate(card: BackboneCard, profile: DatasetProfile) -> Estimate:
    return Estimate(
        seconds=_feature_seconds(card, profile),
        size_mib=card.weights_mib,
        accuracy_source="not estimated: no evidence on these images yet",
    )


def _strategies(catalog: Catalog, wishes: Wishes, situation: Situation) -> tuple[list[Expected], list[Expected]]:
    """The strategies to choose from, and those that say that they don't suit. One that was asked for always suits."""
    asked = [catalog.strategy(name, wishes.options) for name in wishes.strategies or catalog.strategies]
    if wishes.weights == "none" and not wishes.strategies:
        asked = [strategy for strategy in asked if not strategy.recipe(situation).pretrained]
    expected = [(strategy, strategy.expect(situation)) for strategy in asked]
    pinned = bool(wishes.strategies or wishes.weights)
    suited = [pair for pair in expected if pair[1].suits or pinned]
    if not suited:
        raise ImpossibleWishError("any installed strategy", "; ".join(f"{s.name}: {e.why}" for s, e in expected))
    return suited, [pair for pair in expected if not (pair[1].suits or pinned)]


def _other_strategies(backbone: str, others: Sequence[Expected], unsuited: Sequence[Expected]) -> Iterator[Candidate]:
    for strategy, expectation in others:
        yield Candidate(
            backbone=backbone, strategy=strategy.name, estimate=Estimate(), verdict="not_tried", reason=expectation.why
        )
    for strategy, expectation in unsuited:
        yield Candidate(
            backbone=backbone, strategy=strategy.name, estimate=Estimate(), verdict="rejected", reason=expectation.why
        )


def _why_backbone(card: BackboneCard, num_possible: int) -> str:
    if num_possible == 1:
        return f"{card.name}: the only backbone left"
    top1 = f"{100 * card.imagenet_top1:.1f} % on ImageNet" if card.imagenet_top1 else "no published accuracy"
    return f"{card.name}: best of {num_possible} backbones that are on this machine and quick enough ({top1})"


def _spoken(wishes: Wishes) -> str:
    said = wishes.model_dump(exclude_defaults=True)
    return ", ".join(f"{key} {value}" for key, value in said.items()) or "the defaults (no backbone is installed)"


def _nearest(refused: Mapping[str, str | None]) -> str:
    listed = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:5])
    return f"Nearest: {listed}" if listed else "`tl plugins list` shows what is installed."
