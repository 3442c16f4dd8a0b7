"""The probe stages: which backbones and ensembles the budget has time to probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from automl_tl.errors import PluginError, WeightsError
from automl_tl.planning.cost import TIMING_S, seconds_of_probe, time_short
from automl_tl.planning.evidence import EvidenceCollector, Probe
from automl_tl.planning.limits import reject_backbone
from automl_tl.plugin_host import Catalog
from automl_tl.plugin_host.ensemble import ensemble
from automl_tl.training.closed_form import solving_s
from automl_tl.values import BackboneCard, CandidateVerdict

PROBE_SHARE: Final = 0.2  # of the time left that the features of one more backbone may take (decision 15)
DEFAULT_BUDGET_S: Final = 120.0  # that PROBE_SHARE refers to without a budget
NUM_HEADS: Final = 2  # fitted per further backbone: alone, and in an ensemble


def probe_backbones(
    cards: Sequence[BackboneCard],
    catalog: Catalog,
    evidence: EvidenceCollector,
    min_training_s: Callable[[Probe], float | None],
) -> tuple[list[Probe], list[CandidateVerdict]]:
    """Probe each shortlisted backbone that the budget has time for, and return verdicts on the others.

    Args:
        cards: cheapest first; the first is always probed.
        catalog: gives the backbones.
        evidence: measures them.
        min_training_s: seconds that training the first backbone needs, kept free when probing others; ``None``: not worth it.

    Raises:
        PluginError, WeightsError: a requested backbone fails.
    """
    probes: list[Probe] = []
    rejected: list[CandidateVerdict] = []
    training_s: float | None = None
    with evidence.interruptible(probes):
        for card in cards:
            if probes and (reason := _too_expensive(evidence, card, probes[0], training_s)):
                rejected.append(reject_backbone(card.name, reason))
                continue
            try:
                probes.append(evidence.probe(catalog.backbone(card.name)))
            except (PluginError, WeightsError) as error:
                if card.name in evidence.constraints.backbones:
                    raise
                rejected.append(reject_backbone(card.name, str(error)))
                evidence.workspace.progress.warn(f"{error} Planning without {card.name}.")
                continue
            if len(probes) == 1 < len(cards) and evidence.constraints.budget_s is not None:
                training_s = min_training_s(probes[0])
    return probes, rejected


def _too_expensive(evidence: EvidenceCollector, card: BackboneCard, first: Probe, training_s: float | None) -> str | None:
    """Return why a backbone is too expensive to probe, or ``None``."""
    budget_s, left_s, work = evidence.constraints.budget_s, evidence.seconds_left, evidence.workload
    num_sampled = len(first.labels)
    # 1) Seconds scale with multiply-accumulates. If these are unknown, assume equal cost: cards are sorted by cost.
    ratio = card.num_macs / first.card.num_macs if card.num_macs and first.card.num_macs else 1.0
    speed = first.speed.model_copy(update={"forward_s": first.speed.forward_s * ratio})
    # 2) Features of the sample: a fixed share of the time that is left.
    limit_s = PROBE_SHARE * min(left_s, budget_s or DEFAULT_BUDGET_S)
    features_s = num_sampled * max(speed.load_s, speed.forward_s)
    if features_s > limit_s and card.name not in evidence.constraints.backbones:
        return f"feature extraction would take about {features_s:.0f} s; the limit is {max(limit_s, 0):.0f} s"
    # 3) The probe, then publishing this backbone with a closed-form head.
    probe_s = TIMING_S + features_s + NUM_HEADS * solving_s(num_sampled, card.feature_dim, work.num_classes)
    publishing_s = evidence.workspace.publishing_s(card.weights_mib or first.size_mib)
    publish_s = seconds_of_probe(speed, work, feature_dim=card.feature_dim, num_cached=num_sampled, publishing_s=publishing_s)
    if probe_s + publish_s > left_s:
        return f"needs about {time_short(probe_s + publish_s, left_s)}"
    # 4) The probe, then training the first backbone.
    if training_s is not None and probe_s + training_s > left_s:
        return f"probing and then training needs {time_short(probe_s + training_s, left_s)}"
    return None


def probe_ensembles(catalog: Catalog, evidence: EvidenceCollector, probes: Sequence[Probe]) -> list[Probe]:
    """Probe ensembles of the best two backbones, the best three, and so on; none if the user listed backbones.

    ``probes`` of single backbones come cheapest first; ``catalog`` knows ensembles that failed before.
    """
    if evidence.constraints.backbones:
        return []
    by_accuracy = sorted(range(len(probes)), key=lambda at: -probes[at].accuracy)
    ensembles = []
    for count in range(2, len(probes) + 1):
        members = [probes[at] for at in sorted(by_accuracy[:count])]  # the cheapest first
        if ensemble([member.backbone for member in members]).card.name not in catalog.excluded:
            ensembles.append(evidence.probe_ensemble(members))
    return ensembles
