"""Make a plan: collect evidence stage by stage, from cheap to expensive, then choose.

A stage runs only if its possible gain is worth its cost. Each takes evidence and returns what is left and the verdicts on the
rest. No backbone or strategy is known here by name: all take part through their cards, recipes and expectations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import inf, sqrt
from pathlib import Path

from pydantic import ValidationError

from automl_tl.errors import PlanFileError, PluginError
from automl_tl.planning.candidates import (
    Candidate,
    closed_form_candidates,
    ensemble_candidates,
    fine_tuning_candidates,
    min_training_s,
    probe_candidates,
    suitable_recipes,
)
from automl_tl.planning.decide import choose, limits_that_would_change, select_backbone_to_train
from automl_tl.planning.explain import draft_plan, explain_plan, list_rejected
from automl_tl.planning.halving import select_for_halving, successive_halving
from automl_tl.planning.limits import (
    NOT_LOCAL,
    adapt_recipe,
    check_constraints,
    nothing_possible,
    reject_backbone,
    shortlist,
)
from automl_tl.planning.probe import EvidenceCollector, probe_backbones
from automl_tl.plugin_host import Catalog, LoadedStrategy
from automl_tl.training import Trial
from automl_tl.values import BackboneCard, CandidateVerdict, Estimate, Plan

__all__ = ["make_plan", "plan_from_candidates", "read_plan"]


def make_plan(catalog: Catalog, evidence: EvidenceCollector, *, run_trials: bool = True) -> Plan:
    """Choose a backbone and a strategy.

    Args:
        catalog: installed backbones and strategies.
        evidence: of the dataset; holds the constraints and the workspace.
        run_trials: fine-tune candidates before choosing, which takes minutes instead of seconds.

    Raises:
        UnknownBackboneError, UnknownStrategyError: a constraint names an unknown backbone or strategy.
        UnsatisfiableConstraintsError: no candidate satisfies the constraints.
        KeyboardInterrupt: Ctrl-C before there was anything to choose from.
    """
    constraints, workspace = evidence.constraints, evidence.workspace
    began_s = workspace.deadline.spent_s
    # 1) Constraints and cards.
    check_constraints(constraints)
    cards, rejected = shortlist(catalog, constraints, partial(_latency_ms, catalog, evidence))
    if num_away := sum(each.reason in NOT_LOCAL for each in rejected):
        workspace.progress.info(f"Skipping {num_away:,} backbones without local pretrained weights.")
    strategies = _select_strategies(catalog, evidence, cards[0])
    # 2) Random weights give no evidence.
    if not _starts_pretrained(evidence, strategies, cards[0]):
        plan = _plan_from_cards(catalog, evidence, strategies, cards, rejected)
    else:
        # 3) Probes of the backbones, then candidates, trials and the choice.
        probes, failed = probe_backbones(cards, catalog, evidence, partial(min_training_s, evidence, strategies))
        rejected = [*rejected, *failed]
        if not probes:
            raise nothing_possible(constraints, rejected)
        candidates = probe_candidates(evidence, probes, probes[0])
        plan = plan_from_candidates(catalog, evidence, strategies, candidates, rejected, run_trials=run_trials)
    return plan.model_copy(update={"seconds": round(workspace.deadline.spent_s - began_s, 3)})


def plan_from_candidates(
    catalog: Catalog,
    evidence: EvidenceCollector,
    strategies: Sequence[LoadedStrategy],
    backbones: Sequence[Candidate],
    rejected: Sequence[CandidateVerdict],
    *,
    run_trials: bool,
) -> Plan:
    """Choose among the probed backbones, their ensembles and the strategies.

    Args:
        catalog: knows ensembles that failed before.
        evidence: measures what is missing.
        strategies: to consider.
        backbones: a candidate without a strategy for each probe; the first is the reference for ensembles.
        rejected: verdicts of the stages before.
        run_trials: fine-tune candidates before choosing.

    Raises:
        UnsatisfiableConstraintsError: no candidate satisfies the constraints.
    """
    constraints, probes = evidence.constraints, [each.probe for each in backbones]
    rule = partial(choose, constraints=constraints, standard_error=_standard_error(evidence, backbones[0]))
    # 1) The best backbone as it is, the one to fine-tune, and the recipes for it.
    best, _ = rule(backbones, seconds_left=evidence.seconds_left)
    evidence = evidence.with_label_noise(best.probe.label_noise)
    base = select_backbone_to_train(evidence, strategies, backbones, best, rule)
    recipes, unsuitable = suitable_recipes(evidence, strategies, base)
    rejected = [*rejected, *unsuitable]
    if not recipes:
        raise nothing_possible(constraints, rejected)
    # 2) Closed-form heads on backbones and ensembles; what is worth training. Ctrl-C ends this with what there is.
    candidates = closed_form_candidates(evidence, strategies, recipes, backbones)
    trained, changes = list[Candidate](), list[str]()
    with evidence.interruptible(candidates):
        ensembles, expensive = ensemble_candidates(catalog, evidence, strategies, recipes, backbones, best)
        candidates, rejected = [*candidates, *ensembles], [*rejected, *expensive]
        trained, untried, changes = fine_tuning_candidates(evidence, strategies, recipes, base, best, must_train=not candidates)
        trained, uncompared = select_for_halving(trained, best, constraints, evidence.seconds_left)
        rejected = [*rejected, *untried, *uncompared]
    if not (candidates or trained):
        raise nothing_possible(constraints, rejected)
    # 3) Trials, where there is something to decide and there are images to decide it.
    if run_trials and trained and len(candidates) + len(trained) > 1 and evidence.num_validation:
        trained = _run_trials(evidence, strategies, trained, base)
    # 4) The choice. After Ctrl-C, among the backbones whose features are there.
    candidates, seconds_left = [*candidates, *trained], evidence.seconds_left
    if evidence.workspace.deadline.is_ended:
        candidates, seconds_left = [each for each in candidates if each.backbone in (best.backbone, base.backbone)], inf
    chosen, verdicts = rule(candidates, seconds_left=seconds_left)
    changes = [*changes, *limits_that_would_change(candidates, chosen, constraints, partial(rule, seconds_left=seconds_left))]
    strategy = _named(strategies, chosen.strategy)
    if chosen.probe is not base.probe:  # the recipe was written for the backbone to fine-tune
        chosen = _with_own_recipe(evidence, strategy, chosen)
    return explain_plan(evidence, chosen, strategy, probes, [*verdicts, *list_rejected(rejected)], changes)


def _standard_error(evidence: EvidenceCollector, candidate: Candidate) -> float:
    """Return the standard error of an accuracy on the probed images, also where no error was found."""
    error_rate = max(1 - candidate.accuracy, 1 / evidence.profile.num_images)
    return sqrt(error_rate) / sqrt(len(candidate.probe.labels))


def _run_trials(
    evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy], candidates: Sequence[Candidate], base: Candidate
) -> list[Candidate]:
    """Return ``candidates`` with what was measured in successive halving; those that dropped out are marked."""

    def run_trial(candidate: Candidate, epochs: int) -> Trial | None:
        strategy = _named(strategies, candidate.strategy)
        plan = draft_plan(evidence, candidate.probe.card, strategy, candidate.recipe)
        return evidence.trial(plan, candidate.probe.backbone, epochs)

    finished, dropped = successive_halving(candidates, base, evidence.workspace, run_trial)
    return [*finished, *dropped]


def _with_own_recipe(evidence: EvidenceCollector, strategy: LoadedStrategy, candidate: Candidate) -> Candidate:
    """Return ``candidate`` with the recipe that its strategy writes for its backbone."""
    situation = evidence.situation(candidate.probe.card, candidate.probe.num_blocks, candidate.probe)
    return replace(candidate, recipe=adapt_recipe(strategy.recipe(situation), evidence.constraints))


def _named(strategies: Sequence[LoadedStrategy], name: str) -> LoadedStrategy:
    return next(each for each in strategies if each.name == name)


def _latency_ms(catalog: Catalog, evidence: EvidenceCollector, card: BackboneCard) -> float:
    """Measure the latency, or return 0.0 if that fails: the failure is reported when the backbone is probed."""
    try:
        return evidence.latency_ms(catalog.backbone(card.name))
    except PluginError:
        return 0.0


def _select_strategies(catalog: Catalog, evidence: EvidenceCollector, card: BackboneCard) -> list[LoadedStrategy]:
    """Return the requested strategies, or all; for a requested head, those that freeze the encoder, if there are any."""
    constraints = evidence.constraints
    names = constraints.strategies or catalog.strategies
    strategies = [catalog.strategy(name, constraints.options) for name in names]
    if not constraints.hidden_dims or constraints.strategies or constraints.weights == "none":
        return strategies
    situation = evidence.situation(card, card.num_blocks or 1)
    return [each for each in strategies if not each.recipe(situation).phases] or strategies


def _starts_pretrained(evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy], card: BackboneCard) -> bool:
    """Return whether any strategy starts from pretrained weights."""
    situation = evidence.situation(card, card.num_blocks or 1)
    return evidence.constraints.weights != "none" and any(each.recipe(situation).pretrained for each in strategies)


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
    situation = evidence.situation(card, card.num_blocks or len(backbone.cut(backbone.build(pretrained=False))))
    scratch = [each for each in strategies if constraints.strategies or not each.recipe(situation).pretrained]
    strategy = max(scratch or strategies, key=lambda each: each.expect(situation).gain)
    plan = draft_plan(
        evidence,
        card,
        strategy,
        adapt_recipe(strategy.recipe(situation), constraints),
        expected=Estimate(accuracy_source="not estimated: random weights give no evidence", size_mib=card.weights_mib),
        reasons=(f"{card.name}: the cheapest backbone; random weights give no evidence", strategy.expect(situation).why),
    )
    return plan.model_copy(update={"candidates": tuple(list_rejected(verdicts))})


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
