"""Make a plan: collect evidence stage by stage, from cheap to expensive, then choose.

The stages: cards, a cross-validated probe of each backbone, the strategies' expectations, successive halving. A stage runs
only if its possible gain is worth its cost.

No backbone or strategy is known here by name; all take part by their cards, recipes and expectations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from typing import Final

from automl_tl.errors import PluginError, UnsatisfiableConstraintsError, WeightsError
from automl_tl.planning.case import Case
from automl_tl.planning.constraints import adapted, check_constraints
from automl_tl.planning.cost import TIMING_S, seconds_of_probe
from automl_tl.planning.decision import Arm, choose, time_short, with_other_limits
from automl_tl.planning.explain import plan_of, render_plan
from automl_tl.planning.halving import Runner, successive_halving
from automl_tl.planning.limits import NOT_HERE, SHORTLIST, best_first, effort, nothing_possible, possible_cards, shortlist
from automl_tl.planning.probes import Lab, Probe
from automl_tl.planning.runners import Learner, is_worth_training, runners_of, seconds_to_train
from automl_tl.planning.standing import side_by_side, solved_arms, standing_of, worth_joining
from automl_tl.planning.verdicts import EQUAL_WITHIN
from automl_tl.plugin_host import Catalog, LoadedStrategy
from automl_tl.training import LabeledImages
from automl_tl.training.budget import solving_s
from automl_tl.training.run import DEFAULT_SOLVER
from automl_tl.values import BackboneCard, Constraints, DatasetProfile, Estimate, Plan, Recipe

__all__ = ["make_plan"]

PROBE_SHARE: Final = 0.2  # of the time that the features of one more backbone may cost (planner notes, section 7)
PATIENCE_S: Final = 120.0  # the time to share out where no budget is given
NUM_HEADS: Final = 2  # that are solved for each further backbone: alone, and beside others
FAR_OFF: Final = 3.0  # times a latency: what multiply-accumulates say of it is not further off than that
CHEAPEST: Final = "; on the cheapest backbone within 1 pp of the best after fine-tuning"
BEST_ON_IMAGENET: Final = "; on the backbone with the best ImageNet accuracy among those within 1 pp after fine-tuning"
NOT_LOOKED_AT: Final = "not considered: neither among the best on ImageNet nor the cheapest; request it with --backbone"


def make_plan(profile: DatasetProfile, catalog: Catalog, constraints: Constraints, lab: Lab, *, races: bool = True) -> Plan:
    """Plan for the images in ``lab`` from what ``catalog`` offers. Without ``races`` nothing is trained: seconds, not minutes.

    Raises:
        UnknownBackboneError, UnknownStrategyError: a constraint names an unknown backbone or strategy.
        UnsatisfiableConstraintsError: nothing satisfies every wish.
    """
    check_constraints(constraints)
    began_s = lab.workspace.deadline.spent_s
    cards, refused = possible_cards(catalog, constraints)
    if away := sum(reason in NOT_HERE for reason in refused.values()):
        lab.workspace.progress.info(f"Skipping {away:,} backbones without local pretrained weights.")
    strategies = tuple(catalog.strategy(name, constraints.options) for name in constraints.strategies or catalog.strategies)
    case = Case(profile, catalog, constraints, lab, cards, strategies, refused)
    case.cards = shortlist(_quick_enough(case), constraints)
    refused |= {card.name: NOT_LOOKED_AT for card in cards if card not in case.cards and card.name not in refused}
    if constraints.hidden_dims and not constraints.strategies and constraints.weights != "none":
        case.strategies = _of_heads(case)
    plan = _climb(case, races=races) if _starts_pretrained(case) else _by_cards(case)
    return plan.model_copy(update={"seconds": round(lab.workspace.deadline.spent_s - began_s, 3)})


def _quick_enough(case: Case) -> Sequence[BackboneCard]:
    """Return the cheapest backbone and the best ones that satisfy the latency limit."""
    limit_ms = case.constraints.max_latency_ms
    if limit_ms is None or case.constraints.backbones or len(case.cards) <= SHORTLIST:
        return case.cards
    cheapest = min(case.cards, key=effort)
    ms_per_mac = _timed_ms(case, cheapest) / (cheapest.num_macs or inf)
    kept = [cheapest]
    for card in (each for each in best_first(case.cards) if each is not cheapest):
        if len(kept) == SHORTLIST:
            break
        latency_ms = ms_per_mac * (card.num_macs or 0)
        if latency_ms <= FAR_OFF * limit_ms:
            latency_ms = _timed_ms(case, card)
        if latency_ms <= limit_ms:
            kept.append(card)
        else:
            case.refused.setdefault(card.name, f"about {latency_ms:.4g} ms per image; the limit is {limit_ms:.4g}")
    return kept


def _timed_ms(case: Case, card: BackboneCard) -> float:
    """Return the single-image latency in ms, or 0.0 if timing fails (reported when the backbone is probed)."""
    try:
        return case.lab.latency_ms(case.catalog.backbone(card.name))
    except PluginError:
        return 0.0


def _starts_pretrained(case: Case) -> bool:
    """Return whether any strategy starts from pretrained features."""
    card = case.cards[0]
    situation = case.situation(card, card.num_blocks or 1)
    return case.constraints.weights != "none" and any(each.recipe(situation).pretrained for each in case.strategies)


def _of_heads(case: Case) -> Sequence[LoadedStrategy]:
    """Return the strategies that freeze the encoder, or all if there are none."""
    situation = case.situation(case.cards[0], case.cards[0].num_blocks or 1)
    return [each for each in case.strategies if not each.recipe(situation).phases] or case.strategies


def _by_cards(case: Case) -> Plan:
    """Plan for random weights: no evidence is possible, so take the cheapest backbone and the most promising strategy."""
    card = _first_quick_enough(case)
    situation = case.situation(card, _num_blocks(case, card))
    recipes = {each.name: adapted(each.recipe(situation), case.constraints) for each in case.strategies}
    scratch = [each for each in case.strategies if case.constraints.strategies or not each.recipe(situation).pretrained]
    strategy = max(scratch or case.strategies, key=lambda each: each.expect(situation).gain)
    return plan_of(
        case,
        card,
        strategy,
        recipes[strategy.name],
        expected=Estimate(accuracy_source="not estimated: random weights give no evidence", size_mib=card.weights_mib),
        reasons=(f"{card.name}: the cheapest backbone; random weights give no evidence", strategy.expect(situation).why),
    )


def _first_quick_enough(case: Case) -> BackboneCard:
    limit_ms = case.constraints.max_latency_ms
    for card in case.cards:
        latency_ms = 0.0 if limit_ms is None else case.lab.latency_ms(case.catalog.backbone(card.name))
        if limit_ms is None or latency_ms <= limit_ms:
            return card
        case.refused[card.name] = f"{latency_ms:.4g} ms per image; the limit is {limit_ms:.4g}"
    raise nothing_possible(case.constraints, case.refused)


def _num_blocks(case: Case, card: BackboneCard) -> int:
    backbone = case.catalog.backbone(card.name)
    return card.num_blocks or len(backbone.cut(backbone.build(pretrained=False)))


def _climb(case: Case, *, races: bool) -> Plan:
    """Collect evidence stage by stage, then choose."""
    probes = _probes(case)
    standing = standing_of(case, probes, probes[0])
    standard_error = max(1 - standing[0].accuracy, 1 / case.profile.num_images) ** 0.5 / len(probes[0].labels) ** 0.5
    leading = choose(standing, case.constraints, standard_error=standard_error, seconds_left=case.seconds_left).arm
    leader = next(probe for probe in probes if probe.name == leading.backbone)
    case.profile = case.profile.model_copy(update={"label_noise": leader.label_noise})
    learner = _learner(case, standing, probes, leading, standard_error)
    solved, trained = _recipes(case, learner)
    arms = solved_arms(case, solved, standing, probes)
    averaged = {name: recipe for name, recipe in solved.items() if recipe.head.solver in (None, DEFAULT_SOLVER)}
    joined: list[Probe] = []
    runners: list[Runner] = []
    with _interruptible(case, arms):
        joined = side_by_side(case, probes) if averaged else []
        arms += worth_joining(case, solved_arms(case, averaged, standing_of(case, joined, probes[0]), joined), leading)
        runners = runners_of(case, trained, learner, must_run=not arms)
    is_open = len(runners) > 1 or bool(arms)
    if races and runners and is_open and len(case.lab.images["validation"]):
        arms += successive_halving(runners, learner.arm, case.lab.workspace)
    else:
        arms += [runner.arm for runner in runners]
    seconds_left = case.seconds_left
    if case.lab.workspace.deadline.is_ended:  # Ctrl-C: choose among what is available
        arms, seconds_left = [arm for arm in arms if arm.backbone in (leader.name, learner.probe.name)], inf
    choice = choose(arms, case.constraints, standard_error=standard_error, seconds_left=seconds_left)
    wider = with_other_limits(arms, case.constraints, choice.arm, standard_error=standard_error, seconds_left=seconds_left)
    case.changes += wider
    recipes = solved | {runner.arm.strategy: runner.recipe for runner in runners}
    return render_plan(case, choice, [*probes, *joined], learner.probe, recipes)


def _learner(case: Case, standing: Sequence[Arm], probes: Sequence[Probe], leading: Arm, standard_error: float) -> Learner:
    """Select the backbone to fine-tune: the cheapest whose expected fine-tuned accuracy is within 1 pp of the best.

    Differences between near-equal backbones before fine-tuning do not predict those after it, and similarities of different
    backbones are not comparable (decision 42). With ``--optimize accuracy`` it is the backbone with the best ImageNet
    accuracy that can be trained in full (decision 44).
    """
    similarity = next(probe.similarity for probe in probes if probe.name == leading.backbone)
    trained = []
    for arm, probe in zip(standing, probes, strict=True):
        situation = case.situation(probe.backbone.card, probe.num_blocks, replace(probe, similarity=similarity))
        expectations = (strategy.expect(situation) for strategy in case.strategies)
        gain = max((each.gain for each in expectations if each.suits), default=0.0)
        trained.append(replace(arm, accuracy=arm.accuracy + gain))
    choice = choose(
        trained, case.constraints, standard_error=standard_error, seconds_left=case.seconds_left, least_tolerance=EQUAL_WITHIN
    )
    equal = [each.backbone for each in choice.candidates if each.verdict in ("chosen", "tied")]
    learners = {
        probe.name: Learner(arm, probe, leading, len(case.lab.images["validation"]))
        for arm, probe in zip(standing, probes, strict=True)
        if probe.name in equal
    }
    learner = learners[choice.arm.backbone]
    if case.constraints.optimize == "accuracy":
        best = (learners[card.name] for card in best_first([each.probe.backbone.card for each in learners.values()]))
        first = next(each for each in best if each is learner or is_worth_training(*_apart(case, each), each))
        if first is not learner:
            return replace(first, why=BEST_ON_IMAGENET)
    return replace(learner, why=CHEAPEST) if learner.behind else learner


def _apart(case: Case, learner: Learner) -> tuple[Case, dict[str, Recipe]]:
    """Return a copy of ``case`` for asking what training would cost, and the recipes that train."""
    apart = replace(case, refused={}, rejected_strategies=[], changes=[])
    try:
        return apart, _recipes(apart, learner)[1]
    except UnsatisfiableConstraintsError:
        return apart, {}


def _probes(case: Case) -> list[Probe]:
    """Probe each backbone that fits the time; a failing plugin is skipped unless it was requested."""
    probes: list[Probe] = []
    images, training_s = case.lab.sample(), None
    with _interruptible(case, probes):
        for card in case.cards:
            reason = _too_expensive(case, card, probes[0], images, training_s) if probes else None
            if reason is not None:
                case.refused[card.name] = reason
            elif (probe := _probed(case, card, images)) is not None:
                probes.append(probe)
                training_s = training_s if len(probes) > 1 else _seconds_to_train(case, probe)
    if not probes:
        raise nothing_possible(case.constraints, case.refused)
    return probes


@contextmanager
def _interruptible(case: Case, found: Sequence[object]) -> Iterator[None]:
    """Treat Ctrl-C as the end of the budget; choose among the results so far, if there are any."""
    try:
        yield
    except KeyboardInterrupt:
        if not found:
            raise
        case.lab.workspace.deadline.end()


def _probed(case: Case, card: BackboneCard, images: LabeledImages) -> Probe | None:
    try:
        return case.lab.probe(case.catalog.backbone(card.name), images)
    except (PluginError, WeightsError) as error:
        if card.name in case.constraints.backbones:
            raise
        case.refused[card.name] = str(error)
        case.lab.workspace.progress.warn(f"{error} Planning without {card.name}.")
        return None


def _seconds_to_train(case: Case, first: Probe) -> float | None:
    """See ``seconds_to_train``: if the first backbone were the only one. Rejections on the way are reported later."""
    if case.constraints.budget_s is None or len(case.cards) == 1:
        return None
    arm = standing_of(case, [first], first)[0]
    learner = Learner(arm, first, arm, len(case.lab.images["validation"]))
    return seconds_to_train(*_apart(case, learner), learner)


def _too_expensive(case: Case, card: BackboneCard, first: Probe, images: LabeledImages, training_s: float | None) -> str | None:
    """Return why a backbone is too expensive to probe. Seconds scale with multiply-accumulates from the first backbone."""
    macs, macs_of_first = card.num_macs, first.backbone.card.num_macs
    ratio = macs / macs_of_first if macs and macs_of_first else 1.0  # not known: assume equal cost; cards are sorted by cost
    limit_s = PROBE_SHARE * min(case.seconds_left, case.constraints.budget_s or PATIENCE_S)
    speed = first.speed.model_copy(update={"forward_s": first.speed.forward_s * ratio})
    features_s = len(images) * max(speed.load_s, speed.forward_s)
    if features_s > limit_s and card.name not in case.constraints.backbones:
        return f"feature extraction would take about {features_s:.0f} s; the limit is {max(limit_s, 0):.0f} s"
    whole_s = seconds_of_probe(
        speed,
        case.work,
        feature_dim=card.feature_dim,
        num_cached=len(images),
        publishing_s=case.lab.workspace.publishing_s(card.weights_mib or first.size_mib),
    )
    look_s = TIMING_S + features_s + NUM_HEADS * solving_s(len(images), card.feature_dim, case.work.num_classes)
    if look_s + whole_s > case.seconds_left:
        return f"needs about {time_short(look_s + whole_s, case.seconds_left)}"
    if training_s is not None and look_s + training_s > case.seconds_left:
        return f"probing and then training needs {time_short(look_s + training_s, case.seconds_left)}"
    return None


def _recipes(case: Case, learner: Learner) -> tuple[dict[str, Recipe], dict[str, Recipe]]:
    """Return recipes by strategy for the backbone to fine-tune: closed-form ones, and those that train."""
    situation = learner.situation(case)
    recipes = {}
    for strategy in case.strategies:
        expectation = strategy.expect(situation)
        if expectation.suits or case.is_asked_for:
            recipes[strategy.name] = adapted(strategy.recipe(situation), case.constraints)
        else:
            case.reject_strategy(learner.arm.backbone, strategy.name, expectation.why)
    if not recipes:
        raise nothing_possible(case.constraints, case.reasons)
    solved = {name: recipe for name, recipe in recipes.items() if not recipe.phases}
    return solved, {name: recipe for name, recipe in recipes.items() if recipe.phases}
