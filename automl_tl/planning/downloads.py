"""Recommended backbones whose weights are not on this machine: what they would bring, and with ``--download`` their probes.

Without ``--download`` no file is asked for: sizes, gains and seconds follow from the cards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, isinf
from typing import Final

from automl_tl.errors import PluginError, WeightsError
from automl_tl.planning.cost import ProbeCost
from automl_tl.planning.evidence import EvidenceCollector, Probe
from automl_tl.planning.limits import reject_backbone, reject_card
from automl_tl.plugin_host import Catalog
from automl_tl.plugin_host.downloads import (
    ASSUMED_BYTES_PER_S,
    download,
    download_s,
    endpoint,
    is_offline,
    is_reachable,
    is_unreachable,
)
from automl_tl.values import BackboneCard, CandidateVerdict, Constraints

MAX_DOWNLOADED: Final = 2  # like the shortlist: the best of the probed, not all (decision 15)
MAX_SHARE: Final = 0.4  # of the time left that one download may take
MAX_S: Final = 300.0  # without a budget
CONNECT_TIMEOUT_S: Final = 2.0  # to the hub
SPARE: Final = 1.2  # of a budget that the hint asks for
ASSUMED: Final = f"at an assumed {ASSUMED_BYTES_PER_S / 1e6:.0f} MB/s"


@dataclass(frozen=True)
class Offer:
    """A recommended backbone that can be downloaded."""

    card: BackboneCard
    gain: float  # expected accuracy minus that of the best backbone on this machine
    seconds: float  # to download and to probe
    budget_s: float  # that has time for it
    why_not: str | None  # with the budget as it is; ``None``: there is time

    def __str__(self) -> str:
        size_mb = (self.card.weights_mib or 0.0) * 2**20 / 1e6
        return f"{self.card.name} ({size_mb:.0f} MB, about {100 * self.gain:+.1f} pp, {self.seconds:.0f} s)"


def list_offers(
    catalog: Catalog,
    evidence: EvidenceCollector,
    probes: Sequence[Probe],
    why_not: Callable[[BackboneCard], str | None],
    cost: Callable[[BackboneCard], ProbeCost],
) -> tuple[list[Offer], list[CandidateVerdict]]:
    """Return the recommended backbones worth a download, the most promising first, and verdicts on the other recommended ones.

    The errors of a backbone are expected to shrink as they do on ImageNet, against the best backbone that was probed
    (ImageNet accuracy predicts transfer: Kornblith et al., arXiv 1805.08974). The probe decides.

    Args:
        catalog: installed backbones.
        evidence: of the dataset.
        probes: of the backbones on this machine.
        why_not: returns why a backbone is too expensive to probe, or ``None``.
        cost: predicts the seconds of a probe.
    """
    constraints, best_top1 = evidence.constraints, max(probe.card.imagenet_top1 or 0.0 for probe in probes)
    if constraints.backbones or constraints.weights is not None or not best_top1 or is_offline():
        return [], []
    offers, rejected, spent_s = list[Offer](), list[CandidateVerdict](), evidence.workspace.deadline.spent_s
    error_rate = 1 - max(probe.score.value for probe in probes)
    for card in (backbone.card for backbone in catalog.backbones.values()):
        if card.recommended is None or card.weights != "download" or card.imagenet_top1 is None:
            continue
        reason = reject_card(card, constraints, may_download=True) or _too_slow_at_prediction(card, constraints, probes[0])
        gain = error_rate * (1 - (1 - card.imagenet_top1) / (1 - best_top1))
        if reason is None and gain <= 0:
            reason = "not expected to be better than what is on this machine"
        if reason is None:
            transfer_s, probe_cost = download_s(card), cost(card)
            budget_s = SPARE * (spent_s + transfer_s + max(probe_cost.budget_s, transfer_s * (1 / MAX_SHARE - 1)))
            no_time = why_not(card) or _too_slow(evidence, card)
            offers.append(Offer(card, gain, transfer_s + probe_cost.features_s, budget_s, no_time))
        else:
            rejected.append(reject_backbone(card.name, reason))
    return sorted(offers, key=lambda offer: -offer.gain), rejected


def hint(offers: Sequence[Offer]) -> str:
    """Say in a sentence what the most promising download would bring, or the one with the smallest sufficient budget.

    Args:
        offers: at least one, the most promising first.
    """
    offer = next((offer for offer in offers if offer.why_not is None), None)
    if offer is not None:
        return f"with --download: {offer}, {ASSUMED}"
    offer = min(offers, key=lambda offer: offer.budget_s)
    return f"with --download --budget {ceil(offer.budget_s / 60)}m: {offer}, {ASSUMED}"


def _too_slow_at_prediction(card: BackboneCard, constraints: Constraints, first: Probe) -> str | None:
    latency_ms, limit_ms = first.expected_speed(card).latency_ms, constraints.max_latency_ms
    if limit_ms is None or latency_ms <= limit_ms:
        return None
    return f"about {latency_ms:.4g} ms per image expected; the limit is {limit_ms:.4g}"


def probe_downloads(
    offers: Sequence[Offer],
    evidence: EvidenceCollector,
    why_not: Callable[[BackboneCard], str | None],
    probe: Callable[[BackboneCard], list[Probe]],
) -> tuple[list[Probe], list[CandidateVerdict]]:
    """Download and probe the most promising backbones that the budget has time for; a failure leaves the next one.

    Args:
        offers: the most promising first.
        evidence: gives budget and progress.
        why_not: returns why a backbone is too expensive to probe, or ``None``.
        probe: probes a backbone.
    """
    probes, rejected, progress = list[Probe](), list[CandidateVerdict](), evidence.workspace.progress
    num_left, hub_answers = MAX_DOWNLOADED, is_reachable(CONNECT_TIMEOUT_S)
    if hub_answers:
        progress.info(f"--download: up to {MAX_DOWNLOADED} of {', '.join(map(str, offers))}, {ASSUMED}")
    else:
        progress.warn(f"--download: {endpoint()} does not answer within {CONNECT_TIMEOUT_S:.0f} s. Planning without downloads.")
    for offer in offers:
        card = offer.card
        reason = _why_not_downloaded(num_left, hub_answers=hub_answers) or why_not(card) or _too_slow(evidence, card)
        if reason is None:
            try:
                download(card, limit_s=_limit_s(evidence), progress=progress)
                probes += probe(card)
                num_left -= 1
            except (PluginError, WeightsError) as error:
                hub_answers, reason = not is_unreachable(error), str(error)
                progress.warn(f"{error} Planning without {card.name if hub_answers else 'downloads'}.")
        if reason is not None:
            rejected.append(reject_backbone(card.name, reason))
    return probes, rejected


def _why_not_downloaded(num_left: int, *, hub_answers: bool) -> str | None:
    if not hub_answers:
        return "the hub cannot be reached"
    return None if num_left else f"not downloaded: {MAX_DOWNLOADED} more promising ones are"


def _too_slow(evidence: EvidenceCollector, card: BackboneCard) -> str | None:
    limit_s = _limit_s(evidence)
    if download_s(card) <= limit_s:
        return None
    return f"the download would take about {download_s(card):.0f} s {ASSUMED}; the limit is {limit_s:.0f} s"


def _limit_s(evidence: EvidenceCollector) -> float:
    return MAX_S if isinf(evidence.seconds_left) else MAX_SHARE * evidence.seconds_left
