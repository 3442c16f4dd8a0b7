"""Recommended backbones whose weights are not on this machine: what they would bring, and with ``--download`` their probes.

Without ``--download`` nothing is asked of any server: sizes, gains and seconds follow from the cards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isinf
from typing import Final

from automl_tl.errors import PluginError, WeightsError
from automl_tl.planning.evidence import EvidenceCollector, Probe
from automl_tl.planning.limits import reject_backbone, reject_card
from automl_tl.plugin_host import Catalog
from automl_tl.plugin_host.downloads import ASSUMED_BYTES_PER_S, download, download_s, is_offline, is_unreachable
from automl_tl.values import BackboneCard, CandidateVerdict

MAX_DOWNLOADED: Final = 2  # like the shortlist: the best of the probed, not all (decision 15)
MAX_SHARE: Final = 0.4  # of the time left that one download may take
MAX_S: Final = 300.0  # without a budget
ASSUMED: Final = f"at an assumed {ASSUMED_BYTES_PER_S / 1e6:.0f} MB/s"


@dataclass(frozen=True)
class Offer:
    """A recommended backbone that can be downloaded."""

    card: BackboneCard
    gain: float  # expected accuracy minus that of the best backbone on this machine
    seconds: float  # to download and to probe

    def __str__(self) -> str:
        size_mb = (self.card.weights_mib or 0.0) * 2**20 / 1e6
        return f"{self.card.name} ({size_mb:.0f} MB, about {100 * self.gain:+.1f} pp, {self.seconds:.0f} s)"


def list_offers(
    catalog: Catalog, evidence: EvidenceCollector, probes: Sequence[Probe], why_not: Callable[[BackboneCard], str | None]
) -> tuple[list[Offer], list[CandidateVerdict]]:
    """Return the recommended backbones worth a download, the most promising first, and verdicts on the other recommended ones.

    The errors of a backbone are expected to shrink as they do on ImageNet, against the best backbone that was probed
    (ImageNet accuracy predicts transfer: Kornblith et al., arXiv 1805.08974). The probe decides.

    Args:
        catalog: installed backbones.
        evidence: of the dataset.
        probes: of the backbones on this machine.
        why_not: returns why a backbone is too expensive to probe, or ``None``.
    """
    constraints, best_top1 = evidence.constraints, max(probe.card.imagenet_top1 or 0.0 for probe in probes)
    if constraints.backbones or constraints.weights is not None or not best_top1 or is_offline():
        return [], []
    offers, rejected, first = list[Offer](), list[CandidateVerdict](), probes[0]
    for card in (backbone.card for backbone in catalog.backbones.values()):
        if card.recommended is None or card.weights != "download" or card.imagenet_top1 is None:
            continue
        error_rate = 1 - max(probe.accuracy for probe in probes)
        gain = error_rate * (1 - (1 - card.imagenet_top1) / (1 - best_top1))
        speed = first.expected_speed(card)
        seconds = download_s(card) + len(first.labels) * max(speed.load_s, speed.forward_s)
        reason = reject_card(card, constraints, may_download=True) or why_not(card) or _too_slow(evidence, card)
        if reason is None and gain > 0:
            offers.append(Offer(card, gain, seconds))
        else:
            rejected.append(reject_backbone(card.name, reason or "not expected to be better than what is on this machine"))
    return sorted(offers, key=lambda offer: -offer.gain), rejected


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
    num_left, is_reachable = MAX_DOWNLOADED, True
    progress.info(f"--download: up to {MAX_DOWNLOADED} of {', '.join(map(str, offers))}, {ASSUMED}")
    for offer in offers:
        card = offer.card
        reason = _why_not_downloaded(num_left, is_reachable=is_reachable) or why_not(card) or _too_slow(evidence, card)
        if reason is None:
            try:
                download(card, limit_s=_limit_s(evidence), progress=progress)
                probes += probe(card)
                num_left -= 1
            except (PluginError, WeightsError) as error:
                is_reachable, reason = not is_unreachable(error), str(error)
                progress.warn(f"{error} Planning without {card.name if is_reachable else 'downloads'}.")
        if reason is not None:
            rejected.append(reject_backbone(card.name, reason))
    return probes, rejected


def _why_not_downloaded(num_left: int, *, is_reachable: bool) -> str | None:
    if not is_reachable:
        return "the hub cannot be reached"
    return None if num_left else f"not downloaded: {MAX_DOWNLOADED} more promising ones are"


def _too_slow(evidence: EvidenceCollector, card: BackboneCard) -> str | None:
    limit_s = _limit_s(evidence)
    if download_s(card) <= limit_s:
        return None
    return f"the download would take about {download_s(card):.0f} s {ASSUMED}; the limit is {limit_s:.0f} s"


def _limit_s(evidence: EvidenceCollector) -> float:
    return MAX_S if isinf(evidence.seconds_left) else MAX_SHARE * evidence.seconds_left
