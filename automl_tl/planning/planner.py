"""Make a plan: collect evidence stage by stage, from cheap to expensive, then choose.

shortlist -> probe_backbones -> list_candidates -> successive_halving -> choose -> explain_plan.

Each stage takes evidence and returns what is left and the verdicts on the rest. No backbone or strategy is known here by name:
all take part through their cards, recipes and expectations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf, sqrt
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from automl_tl.errors import PlanFileError, PluginError, WeightsError
from automl_tl.planning.candidates import Candidate, best_gain, is_worth_training, list_candidates, probe_candidates
from automl_tl.planning.comparison import EQUAL_WITHIN
from automl_tl.planning.cost import TIMING_S, ProbeCost, seconds_of_probe, time_short
from automl_tl.planning.decide import Rule, choose, draft_plan, explain_plan, limits_that_would_change, list_rejected
from automl_tl.planning.downloads import hint, list_offers, probe_downloads
from automl_tl.planning.evidence import EvidenceCollector, Probe
from automl_tl.planning.halving import Champion, first_epochs, select_for_halving, successive_halving
from automl_tl.planning.limits import (
    NOT_LOCAL,
    adapt_recipe,
    best_on_imagenet_first,
    nothing_possible,
    reject_backbone,
    shortlist,
)
from automl_tl.plugin_host import LEVELS, PLUS, Catalog, LoadedStrategy
from automl_tl.plugin_host.downloads import download, is_offline, is_reachable, pretrained_weights
from automl_tl.training import TrainingTask, Trial
from automl_tl.training.closed_form import WIDE, solving_s
from automl_tl.training.distributed import check_processes, num_processes
from automl_tl.training.trials import train_ahead
from automl_tl.values import BackboneCard, CandidateVerdict, Estimate, Plan, PretrainedWeights

CHEAPEST: Final = "; on the cheapest backbone within 1 pp of the best after fine-tuning"
BEST_ON_IMAGENET: Final = "; on the backbone with the best ImageNet accuracy among those within 1 pp after fine-tuning"
# Share of the time left that the features of one more backbone may take: training is worth more than another backbone
# (decision 71), but a download has to promise more before it is made.
PROBE_SHARE: Final = 0.05
DOWNLOAD_SHARE: Final = 0.2
MAX_PROBE_S: Final = 24.0  # without a budget
NUM_HEADS: Final = 2  # fitted per further backbone: alone, and in an ensemble
HINT_TIMEOUT_S: Final = 1.0  # for the hub to answer, before a plan says what a download would bring
MAX_LEVELS_SHARE: Final = 0.3  # of the time left that the head of the levels may take


def make_plan(catalog: Catalog, evidence: EvidenceCollector, *, run_trials: bool = True) -> Plan:
    """Return a plan: the backbone and the strategy to fit, with reasons.

    Args:
        catalog: installed backbones and strategies.
        evidence: of the dataset; holds the constraints and the workspace.
        run_trials: fine-tune candidates before choosing, which takes minutes instead of seconds.

    Raises:
        UnknownBackboneError, UnknownStrategyError: a constraint names an unknown backbone or strategy.
        PlanError: this machine cannot train with so many processes.
        UnsatisfiableConstraintsError: no candidate satisfies the constraints.
        OutOfTime: Ctrl-C before there was anything to choose from.
    """
    constraints, workspace = evidence.constraints, evidence.workspace
    began_s = workspace.deadline.spent_s
    # 1) Constraints and cards.
    check_processes(constraints.processes or 1, workspace.device)
    cards, rejected = shortlist(catalog, constraints, lambda card: evidence.latency_ms(catalog.backbone(card.name)))
    if num_away := sum(verdict.reason in NOT_LOCAL for verdict in rejected):
        workspace.progress.info(f"Skipping {num_away:,} backbones without local pretrained weights.")
    strategies, situation = _select_strategies(catalog, evidence, cards[0]), evidence.situation(cards[0])
    # 2) Random weights give no evidence.
    if constraints.weights == "none" or not any(strategy.recipe(situation).pretrained for strategy in strategies):
        plan = _plan_from_cards(catalog, evidence, strategies, cards, rejected)
    else:
        # 3) Probes of the backbones, then candidates, trials and the choice.
        probes, unprobed = probe_backbones(cards, catalog, evidence, strategies)
        rejected = [*rejected, *unprobed]
        if not probes:
            raise nothing_possible(constraints, rejected)
        downloaded, undownloaded, hints = _consider_downloads(catalog, evidence, strategies, probes)
        probes += downloaded
        names = {probe.name for probe in downloaded}
        rejected = [*(verdict for verdict in rejected if verdict.backbone not in names), *undownloaded]
        backbones = probe_candidates(evidence, probes, probes[0])
        plan = plan_from_candidates(catalog, evidence, strategies, backbones, rejected, run_trials=run_trials)
        plan = plan.model_copy(update={"changes": (*plan.changes, *hints), "weights": _origins(catalog, plan)})
    return plan.model_copy(update={"seconds": round(workspace.deadline.spent_s - began_s, 3)})


def _consider_downloads(
    catalog: Catalog, evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy], probes: Sequence[Probe]
) -> tuple[list[Probe], list[CandidateVerdict], list[str]]:
    """Download and probe with ``--download``, or else say in a sentence what the most promising download would bring."""
    constraints, progress = evidence.constraints, evidence.workspace.progress
    with evidence.interruptible(probes):

        def why_not(card: BackboneCard) -> str | None:
            return _why_not_probed(evidence, card, probes, DOWNLOAD_SHARE)

        offers, rejected = list_offers(catalog, evidence, probes, why_not, lambda card: _probe_cost(evidence, card, probes))
        if not constraints.download:
            changes = [hint(offers)] if offers and is_reachable(HINT_TIMEOUT_S) else []
            for change in changes:
                progress.info(change)
            return [], [], changes
        in_time = [offer for offer in offers if offer.why_not is None]
        rejected += [reject_backbone(offer.card.name, offer.why_not) for offer in offers if offer.why_not is not None]
        if in_time:
            downloaded, failed = probe_downloads(
                in_time, evidence, why_not, lambda card: _probe(catalog, evidence, strategies, card)
            )
            return downloaded, [*rejected, *failed], []
        why = "HF_HUB_OFFLINE is set" if is_offline() else "; ".join(f"{one.backbone}: {one.reason}" for one in rejected[:2])
        progress.info(f"--download: nothing to download{f' ({why})' if why else ''}")
        return [], rejected, [hint(offers)] if offers else []
    return [], [], []


def _origins(catalog: Catalog, plan: Plan) -> tuple[PretrainedWeights, ...]:
    """Return origin, digest and license of the weights of the chosen backbone; none with the user's own or random ones."""
    if plan.constraints.weights is not None:
        return ()
    names = dict.fromkeys(name.removesuffix(LEVELS) for name in plan.backbone.split(PLUS))
    return tuple(pretrained_weights(catalog.backbone(name).card) for name in names)


def probe_backbones(
    cards: Sequence[BackboneCard], catalog: Catalog, evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy]
) -> tuple[list[Probe], list[CandidateVerdict]]:
    """Return probes of the shortlisted backbones that the budget has time for, and verdicts on the others.

    Args:
        cards: cheapest first; the first is always probed.
        catalog: gives the backbones.
        evidence: measures them.
        strategies: multi-level features are probed if one of them fits a closed-form head.

    Raises:
        PluginError, WeightsError: a requested backbone fails.
    """
    probes: list[Probe] = []
    rejected: list[CandidateVerdict] = []
    with evidence.interruptible(probes):
        for card in cards:
            if probes and (reason := _why_not_probed(evidence, card, probes, PROBE_SHARE)):
                rejected.append(reject_backbone(card.name, reason))
                continue
            try:
                if card.hub and card.weights == "download" and evidence.constraints.weights is None:
                    download(card, limit_s=evidence.seconds_left, progress=evidence.workspace.progress)
                probes += _probe(catalog, evidence, strategies, card)
            except (PluginError, WeightsError) as error:
                if card.name in evidence.constraints.backbones:
                    raise
                rejected.append(reject_backbone(card.name, str(error)))
                evidence.workspace.progress.warn(f"{error} Planning without {card.name}.")
    return probes, rejected


def _probe(
    catalog: Catalog, evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy], card: BackboneCard
) -> list[Probe]:
    """Probe a backbone, with its multi-level features if these can be chosen."""
    backbone = catalog.backbone(card.name)
    return evidence.probe_with_levels(backbone) if _may_use_levels(evidence, strategies, card) else [evidence.probe(backbone)]


def _may_use_levels(evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy], card: BackboneCard) -> bool:
    """Return whether multi-level features can be chosen: no backbone and no weights are requested, a head is fitted."""
    constraints, situation = evidence.constraints, evidence.situation(card)
    if constraints.backbones or constraints.weights is not None or PLUS in card.name or card.num_blocks == 1:
        return False
    if all(strategy.recipe(situation).phases for strategy in strategies):
        return False
    return _level_head_s(evidence) <= MAX_LEVELS_SHARE * evidence.seconds_left


def _level_head_s(evidence: EvidenceCollector) -> float:
    """Predict the seconds to fit the head of the multi-level features of one backbone, which are wider than ``WIDE``."""
    return solving_s(len(evidence.sample()), WIDE + 1, evidence.workload.num_classes)


def _probe_cost(evidence: EvidenceCollector, card: BackboneCard, probes: Sequence[Probe]) -> ProbeCost:
    """Predict the seconds to probe a backbone as ``probes`` were, then to publish it with a closed-form head."""
    first = probes[0]
    speed, work, num_sampled = first.expected_speed(card), evidence.workload, len(first.labels)
    features_s = num_sampled * speed.image_s
    probe_s = TIMING_S + features_s + NUM_HEADS * solving_s(num_sampled, card.feature_dim, work.num_classes)
    if any(probe.parts for probe in probes):
        probe_s += _level_head_s(evidence)
    publishing_s = evidence.workspace.publishing_s(card.weights_mib or first.size_mib)
    publish_s = seconds_of_probe(speed, work, feature_dim=card.feature_dim, num_cached=num_sampled, publishing_s=publishing_s)
    total_s = probe_s + publish_s
    return ProbeCost(features_s, total_s, max(total_s, features_s / DOWNLOAD_SHARE))


def _why_not_probed(evidence: EvidenceCollector, card: BackboneCard, probes: Sequence[Probe], share: float) -> str | None:
    """Return why a backbone is too expensive to probe after ``probes`` within ``share`` of the time left, or ``None``."""
    cost, left_s = _probe_cost(evidence, card, probes), evidence.seconds_left
    # 1) Features of the sample: a share of the time that is left.
    limit_s = MAX_PROBE_S if evidence.constraints.budget_s is None else max(share * left_s, 0.0)
    if cost.features_s > limit_s and card.name not in evidence.constraints.backbones:
        return f"feature extraction would take about {cost.features_s:.1f} s; the limit is {limit_s:.1f} s"
    # 2) The probe, then publishing this backbone with a closed-form head.
    if cost.total_s > left_s:
        return f"needs about {time_short(cost.total_s, left_s)}"
    return None


def plan_from_candidates(
    catalog: Catalog,
    evidence: EvidenceCollector,
    strategies: Sequence[LoadedStrategy],
    backbones: Sequence[Candidate],
    rejected: Sequence[CandidateVerdict],
    *,
    run_trials: bool,
) -> Plan:
    """Return the best plan among the probed backbones, their ensembles and the strategies.

    Args:
        catalog: knows ensembles that failed before.
        evidence: of the dataset.
        strategies: to consider.
        backbones: candidates without a strategy; the first is the reference for ensembles.
        rejected: verdicts of earlier stages.
        run_trials: fine-tune candidates before choosing.

    Raises:
        UnsatisfiableConstraintsError: no candidate satisfies the constraints.
    """
    # 1) The rule, with the standard error of an accuracy on the probed images, also where no error was found.
    constraints, first, by_name = evidence.constraints, backbones[0], {strategy.name: strategy for strategy in strategies}
    error_rate = max(1 - first.accuracy, 1 / evidence.profile.num_images)
    rule = partial(choose, constraints=constraints, standard_error=sqrt(error_rate) / sqrt(first.probe.score.num_effective))
    # 2) The best backbone as it is, and the one to fine-tune.
    best, _ = rule(backbones, seconds_left=evidence.seconds_left)
    evidence = replace(evidence, profile=evidence.profile.model_copy(update={"label_noise": best.probe.label_noise}))
    base = _select_backbone_to_train(evidence, strategies, backbones, best, rule)

    # 3) Closed-form heads on backbones and ensembles; what is worth training, and what of it can be compared.
    #    Training leaves the time to publish what a smaller budget, without time to train, would have published.
    def best_of(candidates: Sequence[Candidate]) -> Candidate:
        return rule(candidates, seconds_left=evidence.seconds_left)[0]

    frozen, trained, untried, changes = list_candidates(catalog, evidence, strategies, backbones, base, best_of)
    trained, uncompared = select_for_halving(trained, best_of(frozen or backbones), constraints, evidence.seconds_left)
    rejected = [*rejected, *untried, *uncompared]
    if not (frozen or trained):
        raise nothing_possible(constraints, rejected)
    # 4) Trials, where there is something to decide and there are images to decide it.
    candidates = [*frozen, *trained]
    if run_trials and trained and len(candidates) > 1 and evidence.num_validation:
        champion = _champion(evidence, best_of(frozen)) if frozen else None
        partner = _partner(catalog, evidence, base, frozen, best_of)
        candidates = [*frozen, *_trained(evidence, by_name, trained, base, champion, partner)]
        # The process that has trained them fits and publishes the choice.
        memory_mib = max(candidate.memory_mib for candidate in trained)
        candidates = [replace(candidate, memory_mib=max(candidate.memory_mib, memory_mib)) for candidate in candidates]
    # 5) The choice. After Ctrl-C, among the backbones whose features are there.
    seconds_left = evidence.seconds_left
    if evidence.workspace.deadline.is_ended:
        names, seconds_left = (best.backbone, base.backbone), inf
        candidates = [candidate for candidate in candidates if candidate.backbone in names]
    chosen, verdicts = rule(candidates, seconds_left=seconds_left)
    changes += limits_that_would_change(candidates, chosen, constraints, partial(rule, seconds_left=seconds_left))
    strategy, probes = by_name[chosen.strategy], [backbone.probe for backbone in backbones]
    if chosen.probe is not base.probe:  # the recipe was written for the backbone to fine-tune
        chosen = replace(chosen, recipe=adapt_recipe(strategy.recipe(evidence.situation(chosen.probe)), constraints))
    return explain_plan(evidence, chosen, strategy, probes, [*verdicts, *list_rejected(rejected)], changes)


def _select_backbone_to_train(
    evidence: EvidenceCollector,
    strategies: Sequence[LoadedStrategy],
    candidates: Sequence[Candidate],
    best: Candidate,
    rule: Rule,
) -> Candidate:
    """Select the backbone to fine-tune: the cheapest whose expected fine-tuned accuracy is within 1 pp of the best.

    Differences between near-equal backbones before fine-tuning do not predict those after it, and similarities of different
    backbones are not comparable (decision 42). With ``--optimize accuracy`` it is the backbone with the best ImageNet
    accuracy that can be trained in full (decision 44).
    """
    # 1) Expected accuracy after fine-tuning, all backbones at the similarity of the best.
    own = [base for base in candidates if not base.probe.parts] or candidates  # multi-level features are not trained
    accuracies = {candidate.backbone: candidate.accuracy for candidate in candidates}
    bases = dict[str, Candidate]()
    for base in own:
        behind = max(best.accuracy - base.accuracy, 0.0)
        levels_gain = max(accuracies.get(base.backbone + LEVELS, 0.0) - base.accuracy, 0.0)
        bases[base.backbone] = replace(base, behind=behind, levels_gain=levels_gain)
    tuned = []
    for base in bases.values():
        situation = evidence.situation(replace(base.probe, similarity=best.probe.similarity))
        gain = best_gain(strategy.expect(situation) for strategy in strategies)
        tuned.append(replace(base, accuracy=base.accuracy + max(gain, base.levels_gain)))
    # 2) The same rule as for the final choice, but within 1 pp all are tied.
    chosen, verdicts = rule(tuned, seconds_left=evidence.seconds_left, min_tolerance=EQUAL_WITHIN)
    cheapest = bases[chosen.backbone]
    # 3) For accuracy alone, the best on ImageNet among the tied, if there is time to train it in full.
    if evidence.constraints.optimize == "accuracy":
        tied = [bases[verdict.backbone].probe.card for verdict in verdicts if verdict.verdict in ("chosen", "tied")]
        for base in (bases[card.name] for card in best_on_imagenet_first(tied)):
            if base is cheapest:
                break
            if is_worth_training(evidence, strategies, base, best):
                return replace(base, reason=BEST_ON_IMAGENET)
    return replace(cheapest, reason=CHEAPEST) if cheapest.behind else cheapest


def _trained(
    evidence: EvidenceCollector,
    by_name: Mapping[str, LoadedStrategy],
    candidates: Sequence[Candidate],
    base: Candidate,
    champion: Champion | None,
    partner: Champion | None,
) -> list[Candidate]:
    """Return what successive halving makes of ``candidates``: trained, averaged with ``partner``, or given up."""
    with evidence.interruptible(candidates):
        train_ahead([_task(evidence, by_name, each) for each in candidates], list(map(first_epochs, candidates)))
    run_trial = partial(_run_trial, evidence, by_name)
    return successive_halving(candidates, base, evidence.workspace, run_trial, champion, partner)


def _champion(evidence: EvidenceCollector, candidate: Candidate) -> Champion:
    """Return the best candidate without training, with what it predicts for validation images out of fold."""
    positions, rows = evidence.images["validation"].positions_in(evidence.sample())
    return Champion(candidate, positions, candidate.probe.probabilities[rows])


def _partner(
    catalog: Catalog,
    evidence: EvidenceCollector,
    base: Candidate,
    frozen: Sequence[Candidate],
    best_of: Callable[[Sequence[Candidate]], Candidate],
) -> Champion | None:
    """Return the best closed-form head on another backbone, or other features, that takes the same images as ``base``."""

    def fits(candidate: Candidate) -> bool:
        return (
            candidate.backbone != base.backbone
            and PLUS not in candidate.backbone
            and candidate.probe.card.preprocessing == base.probe.card.preprocessing
            and f"{base.backbone}{PLUS}{candidate.backbone}" not in catalog.excluded
        )

    possible = [candidate for candidate in frozen if fits(candidate)]
    return _champion(evidence, best_of(possible)) if possible else None


def _run_trial(
    evidence: EvidenceCollector, by_name: Mapping[str, LoadedStrategy], candidate: Candidate, epochs: int
) -> Trial | None:
    task = _task(evidence, by_name, candidate)
    return evidence.trial(task.plan, task.backbone, epochs)


def _task(evidence: EvidenceCollector, by_name: Mapping[str, LoadedStrategy], candidate: Candidate) -> TrainingTask:
    plan = draft_plan(
        evidence, candidate.probe.card, by_name[candidate.strategy], candidate.recipe, processes=candidate.cost.processes
    )
    return evidence.task(plan, candidate.probe.backbone)


def _select_strategies(catalog: Catalog, evidence: EvidenceCollector, card: BackboneCard) -> list[LoadedStrategy]:
    """Return the requested strategies, or all; for a requested head, those that freeze the encoder, if there are any."""
    constraints = evidence.constraints
    names = constraints.strategies or catalog.strategies
    strategies = [catalog.strategy(name, constraints.options) for name in names]
    if not constraints.hidden_dims or constraints.strategies or constraints.weights == "none":
        return strategies
    situation = evidence.situation(card)
    return [strategy for strategy in strategies if not strategy.recipe(situation).phases] or strategies


def _plan_from_cards(
    catalog: Catalog,
    evidence: EvidenceCollector,
    strategies: Sequence[LoadedStrategy],
    cards: Sequence[BackboneCard],
    rejected: Sequence[CandidateVerdict],
) -> Plan:
    """Plan for random weights: the cheapest backbone within the latency limit and the most promising strategy."""
    constraints, limit_ms = evidence.constraints, evidence.constraints.max_latency_ms
    # 1) The backbone.
    verdicts = list(rejected)
    for card in cards:
        latency_ms = 0.0 if limit_ms is None else evidence.latency_ms(catalog.backbone(card.name))
        if limit_ms is None or latency_ms <= limit_ms:
            break
        verdicts.append(reject_backbone(card.name, f"{latency_ms:.4g} ms per image; the limit is {limit_ms:.4g}"))
    else:
        raise nothing_possible(constraints, verdicts)
    # 2) The strategy: a requested one, else one that is made for random weights, else any.
    backbone = catalog.backbone(card.name)
    num_blocks = card.num_blocks or len(backbone.cut(backbone.build(pretrained=False)))
    situation = evidence.situation(card.model_copy(update={"num_blocks": num_blocks}))
    if not constraints.strategies:
        strategies = [strategy for strategy in strategies if not strategy.recipe(situation).pretrained] or strategies
    strategy = max(strategies, key=lambda strategy: strategy.expect(situation).gain)
    recipe = adapt_recipe(strategy.recipe(situation), constraints)
    no_evidence = "random weights give no evidence"
    processes = num_processes(constraints.processes, evidence.workspace.device) if recipe.phases else 1
    return draft_plan(evidence, card, strategy, recipe, processes=processes).model_copy(
        update={
            "expected": Estimate(accuracy_source=f"not estimated: {no_evidence}", size_mib=card.weights_mib),
            "reasons": (f"{card.name}: the cheapest backbone; {no_evidence}", strategy.expect(situation).why),
            "candidates": tuple(list_rejected(verdicts)),
        }
    )


def read_plan(path: Path) -> Plan:
    """Read a plan from a JSON file.

    Raises:
        PlanFileError: there is no such file, or it is not a plan of this version.
    """
    try:
        return Plan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PlanFileError(path, error.strerror or str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise PlanFileError(path, f"{where}: {first['msg']} ({error.error_count()} problems in total)") from error
