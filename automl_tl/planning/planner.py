"""From facts to a plan, up a ladder of evidence from cheap to dear.

The rungs: cards, a cross-validated probe of each backbone, what the strategies expect, short races. A rung is climbed only
if what it may gain is worth what it costs.

No backbone and no strategy is known here by name: all take part by their cards, recipes and expectations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from statistics import NormalDist
from typing import Final

from automl_tl.catalog import PLUS, Catalog, OfferedStrategy, together
from automl_tl.contracts import Expectation, Situation
from automl_tl.errors import PluginError, WeightsError
from automl_tl.evaluation import percent, percent_range, wilson
from automl_tl.planning.cost import Workload, memory_mib, seconds_of_probe, seconds_of_training
from automl_tl.planning.decision import Arm, Choice, choose, predictive_sd
from automl_tl.planning.limits import nothing_possible, possible_cards, shortlist
from automl_tl.planning.probes import Lab, Probe
from automl_tl.planning.races import Runner, race
from automl_tl.planning.reasons import no_signal, undecided, why_backbone
from automl_tl.planning.verdicts import compare, shrunk
from automl_tl.planning.wishes import adapted, check_wishes
from automl_tl.training import Trial, trial
from automl_tl.training.job import DEFAULT_SOLVER
from automl_tl.values import BackboneCard, Candidate, DatasetProfile, Estimate, Plan, Recipe, Wishes

__all__ = ["make_plan", "situation_of"]

WORTH_HAVING: Final = 0.01  # of accuracy: a strategy that can't bring a point is not trained
LIKELY: Final = 0.2  # the least probability of bringing it (planner notes, section 7)
MOST_OF_THE_ERRORS: Final = 0.5  # that moving an encoder can be hoped to take away (planner notes, section 2)
GAIN_PER_S: Final = 0.02 / 60  # without a budget, a minute has to be expected to bring two points
PROBE_SHARE: Final = 0.2  # of the time that the features of one more backbone may cost (planner notes, section 7)
PATIENCE_S: Final = 120.0  # the time to share out where no budget is given
MAX_RUNNERS: Final = 3
FEWEST_TO_JUDGE: Final = 25  # validation images; with fewer the standard error of a race is above 8 points
NOT_LOOKED_AT: Final = "not looked at: neither among the best on ImageNet nor the cheapest; ask for it with --backbone"
# Near-equal backbones are taken to be equal, give or take this share of the errors, until the images say otherwise: that a
# backbone is better on ImageNet said nothing here (DECISIONS 24; Fang et al., arXiv 2301.04644, found the same).
EQUAL_SD: Final = 0.15
USUAL_GAIN: Final = 0.08  # share of the errors that each further backbone beside the first takes away (DECISIONS 30)


def make_plan(profile: DatasetProfile, catalog: Catalog, wishes: Wishes, lab: Lab, *, races: bool = True) -> Plan:
    """Plan for the images in ``lab`` from what ``catalog`` offers. Without ``races`` nothing is trained: seconds, not minutes.

    Raises:
        UnknownBackboneError, UnknownStrategyError: a wish names what nobody offers.
        ImpossibleWishError: nothing satisfies every wish.
    """
    check_wishes(wishes)
    began_s = lab.bench.deadline.spent_s
    cards, refused = possible_cards(catalog, wishes)
    strategies = tuple(catalog.strategy(name, wishes.options) for name in wishes.strategies or catalog.strategies)
    looked_at = shortlist(cards, wishes)
    refused |= {card.name: NOT_LOOKED_AT for card in cards if card not in looked_at}
    ladder = _Ladder(profile, catalog, wishes, lab, looked_at, strategies, refused)
    if wishes.hidden_dims and not wishes.strategies:
        ladder.strategies = ladder.of_heads()
    plan = ladder.climb(races=races) if ladder.starts_pretrained else ladder.by_cards()
    return plan.model_copy(update={"seconds": round(lab.bench.deadline.spent_s - began_s, 3)})


def situation_of(profile: DatasetProfile, card: BackboneCard, num_blocks: int, probe: Probe | None = None) -> Situation:
    """What a strategy is told; with a ``probe``, what that found as well."""
    return Situation(
        num_images=profile.num_images,
        num_classes=profile.num_classes,
        min_images_per_class=profile.min_images_per_class,
        imbalance=profile.imbalance,
        num_blocks=num_blocks,
        feature_dim=card.feature_dim,
        image_side_px=card.preprocessing.side_px,
        similarity=None if probe is None else probe.similarity,
        probe_accuracy=None if probe is None else probe.accuracy,
    )


@dataclass
class _Ladder:
    """The rungs for one data set. ``refused`` gathers why backbones are out, ``changes`` what would change the decision."""

    profile: DatasetProfile
    catalog: Catalog
    wishes: Wishes
    lab: Lab
    cards: Sequence[BackboneCard]  # cheapest first
    strategies: Sequence[OfferedStrategy]
    refused: dict[str, str]
    changes: list[str] = field(default_factory=list)

    @property
    def starts_pretrained(self) -> bool:
        """Whether there is a strategy that pretrained features say anything about."""
        card = self.cards[0]
        situation = situation_of(self.profile, card, card.num_blocks or 1)
        return self.wishes.weights != "none" and any(each.recipe(situation).pretrained for each in self.strategies)

    def of_heads(self) -> Sequence[OfferedStrategy]:
        """The strategies that leave the encoder as it is, or all: who asks for a head alone asks for no more."""
        situation = situation_of(self.profile, self.cards[0], self.cards[0].num_blocks or 1)
        return [each for each in self.strategies if not each.recipe(situation).phases] or self.strategies

    @property
    def is_asked_for(self) -> bool:
        """The user chose the strategies, so none is too dear."""
        return bool(self.wishes.strategies or self.wishes.hidden_dims)

    @property
    def seconds_left(self) -> float:
        """Of the budget; without one there is no end."""
        return self.lab.bench.deadline.left_s

    # --------------------------------------------------------------------------------------------- without features

    def by_cards(self) -> Plan:
        """Random weights: nothing can be known beforehand. The cheapest backbone, the strategy that expects most."""
        card = self._first_quick_enough()
        situation = situation_of(self.profile, card, self._num_blocks(card))
        recipes = {each.name: adapted(each.recipe(situation), self.wishes) for each in self.strategies}
        scratch = [each for each in self.strategies if self.wishes.strategies or not each.recipe(situation).pretrained]
        strategy = max(scratch or self.strategies, key=lambda each: each.expect(situation).gain)
        return self._plan(
            card,
            strategy,
            recipes[strategy.name],
            expected=Estimate(
                accuracy_source="not estimated: random weights say nothing beforehand", size_mib=card.weights_mib
            ),
            reasons=(f"{card.name}: the cheapest, as random weights say nothing of it", strategy.expect(situation).why),
            candidates=(),
        )

    def _first_quick_enough(self) -> BackboneCard:
        limit_ms = self.wishes.max_latency_ms
        for card in self.cards:
            latency_ms = 0.0 if limit_ms is None else self.lab.latency_ms(self.catalog.backbone(card.name))
            if limit_ms is None or latency_ms <= limit_ms:
                return card
            self.refused[card.name] = f"{latency_ms:.0f} ms per image, allowed are {limit_ms:.4g}"
        raise nothing_possible(self.wishes, self.refused)

    def _num_blocks(self, card: BackboneCard) -> int:
        backbone = self.catalog.backbone(card.name)
        return card.num_blocks or len(backbone.cut(backbone.build(pretrained=False)))

    # --------------------------------------------------------------------------------------------------- with features

    def climb(self, *, races: bool) -> Plan:
        """All rungs."""
        probes = self._probes()
        standing = self._standing(probes, probes[0])
        standard_error = max(1 - standing[0].accuracy, 1 / self.profile.num_images) ** 0.5 / len(probes[0].labels) ** 0.5
        leading = choose(standing, self.wishes, standard_error=standard_error, seconds_left=self.seconds_left).arm
        leader = next(probe for probe in probes if probe.name == leading.backbone)
        self.profile = self.profile.model_copy(update={"label_noise": leader.label_noise})
        solved, trained = self._recipes(leader)
        arms = self._solved_arms(solved, standing, probes)
        averaged = {name: recipe for name, recipe in solved.items() if recipe.head.solver in (None, DEFAULT_SOLVER)}
        joined = self._together(probes) if averaged else []
        arms += self._worth_joining(self._solved_arms(averaged, self._standing(joined, probes[0]), joined), leading)
        runners = self._runners(trained, leading, leader, must_run=not arms)
        if races and runners and (len(runners) > 1 or arms):
            arms += race(runners, leading, self.lab.bench)
        else:
            arms += [runner.arm for runner in runners]
        seconds_left = inf if self.lab.bench.deadline.is_ended else self.seconds_left  # who ends it wants what there is
        choice = choose(arms, self.wishes, standard_error=standard_error, seconds_left=seconds_left)
        return self._told(choice, [*probes, *joined], leader, {**solved, **trained})

    def _probes(self) -> list[Probe]:
        """A probe of each backbone whose features are affordable; a plugin that fails is left out, unless it was asked for."""
        probes: list[Probe] = []
        images = self.lab.sample()
        for card in self.cards:
            if probes and (reason := self._too_dear(card, probes[0], len(images))):
                self.refused[card.name] = reason
                continue
            try:
                probes.append(self.lab.probe(self.catalog.backbone(card.name), images))
            except (PluginError, WeightsError) as error:
                if card.name in self.wishes.backbones:
                    raise
                self.refused[card.name] = str(error)
                self.lab.bench.story.warn(f"{error} The plan is made without {card.name}.")
        if not probes:
            raise nothing_possible(self.wishes, self.refused)
        return probes

    def _too_dear(self, card: BackboneCard, first: Probe, num_images: int) -> str | None:
        """Seconds follow from those of the first backbone, by the multiply-accumulates of both."""
        limit_s = PROBE_SHARE * min(self.seconds_left, self.wishes.budget_s or PATIENCE_S)
        macs = card.num_macs, first.backbone.card.num_macs
        if card.name in self.wishes.backbones or macs[0] is None or macs[1] is None:
            return None
        seconds = num_images * max(first.speed.load_s, first.speed.forward_s * macs[0] / macs[1])
        return (
            f"features would take about {seconds:.0f} s, {max(limit_s, 0):.0f} s are allowed for" if seconds > limit_s else None
        )

    def _together(self, probes: Sequence[Probe]) -> list[Probe]:
        """The best two backbones side by side, the best three, unless the user named those to choose from."""
        if self.wishes.backbones:
            return []
        ranked, images = sorted(probes, key=lambda probe: -probe.accuracy), self.lab.sample()
        joined = []
        for count in range(2, len(ranked) + 1):
            members = [probe for probe in probes if probe in ranked[:count]]  # the cheapest first
            backbone = together([member.backbone for member in members])
            if not self.catalog.leaves_out(backbone.card.name):
                joined.append(self.lab.together(backbone, members, images))
        return joined

    def _worth_joining(self, arms: Sequence[Arm], leading: Arm) -> list[Arm]:
        """Those that bring enough for the time that their features take: without a budget, two points a minute."""
        worth = []
        for arm in arms:
            gain, seconds = arm.accuracy - leading.accuracy, arm.seconds - leading.seconds
            if self.wishes.budget_s is None and gain < GAIN_PER_S * seconds:
                reason = f"{100 * gain:+.1f} points expected for {seconds / 60:.1f} minutes: without a budget too dear"
                self.refused[arm.backbone] = reason
            else:
                worth.append(arm)
        return worth

    def _standing(self, probes: Sequence[Probe], first: Probe) -> list[Arm]:
        """The backbones as arms with a linear probe; differences that were measured are weighed against what is usual."""
        work = self._work
        errors = max(1 - first.accuracy, 1 / len(first.labels))
        arms = []
        for probe in probes:
            accuracy = first.accuracy
            if probe is not first:
                found = compare(probe.probabilities, first.probabilities, first.labels)
                usual = USUAL_GAIN * probe.name.count(PLUS) * errors
                gain, _ = shrunk(found.difference, found.standard_error, usual, EQUAL_SD * errors)
                accuracy += gain
            interval = percent_range(wilson(round(probe.accuracy * len(probe.labels)), len(probe.labels)))
            arms.append(
                Arm(
                    backbone=probe.name,
                    strategy="",
                    accuracy=min(max(accuracy, 0.0), 1.0),
                    sd=predictive_sd(probe.accuracy, len(probe.labels), self.profile.num_test_images),
                    source=f"5-fold probe of {len(probe.labels)} images: {percent(probe.accuracy)} ({interval})",
                    seconds=seconds_of_probe(
                        probe.speed, work, num_cached=len(probe.labels) * probe.is_kept, size_mib=probe.size_mib
                    ),
                    latency_ms=probe.speed.latency_ms,
                    size_mib=probe.size_mib,
                    memory_mib=memory_mib(Recipe(), None, probe.backbone.card.num_parameters),
                    why="",
                )
            )
        return arms

    @property
    def _work(self) -> Workload:
        return Workload.of(self.profile, len(self.lab.images["validation"]))

    def _recipes(self, leader: Probe) -> tuple[dict[str, Recipe], dict[str, Recipe]]:
        """Recipes by strategy on the leading backbone: those that are solved, and those that train."""
        situation = situation_of(self.profile, leader.backbone.card, leader.num_blocks, leader)
        recipes = {}
        for strategy in self.strategies:
            expectation = strategy.expect(situation)
            if expectation.suits or self.is_asked_for:
                recipes[strategy.name] = adapted(strategy.recipe(situation), self.wishes)
            else:
                self.refused[f"{leader.name} with {strategy.name}"] = expectation.why
        if not recipes:
            raise nothing_possible(self.wishes, self.refused)
        solved = {name: recipe for name, recipe in recipes.items() if not recipe.phases}
        return solved, {name: recipe for name, recipe in recipes.items() if recipe.phases}

    def _solved_arms(self, solved: Mapping[str, Recipe], standing: Sequence[Arm], probes: Sequence[Probe]) -> list[Arm]:
        """An arm per backbone and solved strategy; another solver than the probes' is solved for itself."""
        arms = []
        for strategy in (each for each in self.strategies if each.name in solved):
            solver = solved[strategy.name].head.solver or DEFAULT_SOLVER
            for arm, probe in zip(standing, probes, strict=True):
                situation = situation_of(self.profile, probe.backbone.card, probe.num_blocks, probe)
                named = replace(arm, strategy=strategy.name, why=strategy.expect(situation).why)
                if solver != DEFAULT_SOLVER:
                    other = self.lab.probe(probe.backbone, self.lab.sample(), solver)
                    found = compare(other.probabilities, probe.probabilities, probe.labels)
                    named = replace(named, accuracy=min(max(arm.accuracy + found.difference, 0.0), 1.0))
                arms.append(named)
        return arms

    def _runners(self, trained: Mapping[str, Recipe], leading: Arm, leader: Probe, *, must_run: bool) -> list[Runner]:
        """The strategies that are worth training, best value for time first."""
        situation = situation_of(self.profile, leader.backbone.card, leader.num_blocks, leader)
        offers: list[Runner] = []
        dear: list[Runner] = []
        for strategy in (each for each in self.strategies if each.name in trained):
            expectation = strategy.expect(situation)
            reason = None if self.is_asked_for else self._not_judgeable() or _unlikely(expectation, leader)
            if reason is None or must_run:
                try:
                    runner = self._runner(strategy, trained[strategy.name], expectation, leading, leader)
                except PluginError as error:
                    self.refused[f"{leader.name} with {strategy.name}"] = str(error)
                    continue
                reason = reason or (None if self.is_asked_for else self._too_long(runner))
                (offers if reason is None else dear).append(runner)
            if reason is not None:
                self.refused[f"{leader.name} with {strategy.name}"] = reason
        if must_run and not offers:
            offers = dear[:1]
        offers.sort(key=lambda each: -_expected_improvement(each.gain, each.gain_sd) / each.arm.seconds)
        return offers if self.is_asked_for else offers[:MAX_RUNNERS]

    def _runner(
        self, strategy: OfferedStrategy, recipe: Recipe, expectation: Expectation, leading: Arm, leader: Probe
    ) -> Runner:
        card, training = leader.backbone.card, self.lab.training_speed(leader.backbone)
        trial_s, finish_s = seconds_of_training(recipe, leader.speed, training, self._work, size_mib=leader.size_mib)
        arm = replace(
            leading,
            strategy=strategy.name,
            accuracy=min(max(leading.accuracy + expectation.gain, 0.0), 1.0),
            sd=(leading.sd**2 + expectation.gain_sd**2) ** 0.5,
            source=f"{leading.source}, and what the strategy expects to gain",
            seconds=trial_s + finish_s,
            memory_mib=memory_mib(recipe, training, card.num_parameters),
            why=expectation.why,
        )
        plan = self._plan(card, strategy, recipe, expected=Estimate(), reasons=(expectation.why,), candidates=())

        def run(*, epochs: int) -> Trial | None:
            with leader.backbone.fence("was trained"):
                return trial(plan, leader.backbone, self.lab.classes, self.lab.images, self.lab.bench, epochs=epochs)

        return Runner(arm, recipe, expectation.gain, _bounded_sd(expectation, leader), trial_s, run)

    def _not_judgeable(self) -> str | None:
        """Why training can't be judged on these images, or ``None``."""
        count = len(self.lab.images["validation"])
        return f"{count} validation images are too few to tell whether it gains" if count < FEWEST_TO_JUDGE else None

    def _too_long(self, runner: Runner) -> str | None:
        """Why a strategy is not tried for the time that it would take, or ``None``."""
        seconds, left_s = runner.arm.seconds, self.seconds_left
        if seconds > left_s:
            self._would_change(runner, f"--budget {_minutes(seconds + self.lab.bench.deadline.spent_s)}m")
            return f"needs about {seconds:.0f} s, {max(left_s, 0):.0f} s are left"
        if self.wishes.budget_s is None and _expected_improvement(runner.gain, runner.gain_sd) < GAIN_PER_S * seconds:
            self._would_change(runner, f"--budget {_minutes(seconds + self.lab.bench.deadline.spent_s)}m")
            return f"{100 * runner.gain:+.1f} points expected for {seconds / 60:.1f} minutes: without a budget too dear"
        return None

    def _would_change(self, runner: Runner, what: str) -> None:
        points = f"{100 * runner.gain:+.1f} ± {100 * runner.gain_sd:.1f} points expected"
        self.changes.append(f"with {what} {runner.arm.strategy} is tried: {points}")

    # -------------------------------------------------------------------------------------------------------- the plan

    def _told(self, choice: Choice, probes: Sequence[Probe], leader: Probe, recipes: Mapping[str, Recipe]) -> Plan:
        arm = choice.arm
        chosen = next(probe for probe in probes if probe.name == arm.backbone)
        strategy = next(each for each in self.strategies if each.name == arm.strategy)
        recipe = recipes[arm.strategy]
        if chosen is not leader:
            situation = situation_of(self.profile, chosen.backbone.card, chosen.num_blocks, chosen)
            recipe = adapted(strategy.recipe(situation), self.wishes)
        reasons = [why_backbone(chosen, probes), f"{arm.strategy}: {arm.why}"]
        if chosen.similarity is not None:
            reasons.append(f"similarity to its pretraining {chosen.similarity:.2f}, by the confidence of its own classifier")
        if self.profile.label_noise:
            reasons.append(f"{percent(self.profile.label_noise)} of the labels look wrong to it")
        if (warning := no_signal(chosen)) is not None:
            self.lab.bench.story.warn(warning)
            reasons.append(warning)
        plan = self._plan(
            chosen.backbone.card,
            strategy,
            recipe,
            expected=arm.estimate,
            reasons=tuple(reasons),
            candidates=choice.candidates,
        )
        alone = [probe for probe in probes if PLUS not in probe.name]
        changes = (*self.changes, *undecided(chosen, alone), *self._what_cannot_be_known())
        return plan.model_copy(update={"similarity": chosen.similarity, "changes": changes})

    def _what_cannot_be_known(self) -> Iterator[str]:
        fewest = self.profile.min_images_per_class
        if fewest < 5:
            classes = [name for name, count in self.profile.images_per_class.items() if count == fewest]
            yield f"{classes[0]!r} has {fewest} images to learn from: too few to know how well it is recognised, take 20"

    def _plan(
        self,
        card: BackboneCard,
        strategy: OfferedStrategy,
        recipe: Recipe,
        *,
        expected: Estimate,
        reasons: tuple[str, ...],
        candidates: tuple[Candidate, ...],
    ) -> Plan:
        return Plan(
            backbone=card.name,
            strategy=strategy.name,
            strategy_options=strategy.options,
            recipe=recipe,
            preprocessing=card.preprocessing,
            wishes=self.wishes,
            profile=self.profile,
            expected=expected,
            reasons=reasons,
            candidates=(*candidates, *self._left_out()),
        )

    def _left_out(self) -> Iterator[Candidate]:
        """What was not even tried, for its reason. Backbones that are not on this machine are counted, not listed."""
        away = 0
        for name, reason in self.refused.items():
            backbone, _, strategy = name.partition(" with ")
            if not strategy and reason in ("weights are not on this machine", "no pretrained weights"):
                away += 1
                continue
            yield _left_out(backbone, strategy, reason)
        if away:
            yield _left_out(f"{away} more", "", "their weights are not on this machine, or there are none")


def _left_out(backbone: str, strategy: str, reason: str) -> Candidate:
    verdict = "not_tried" if strategy else "rejected"
    arm = {"backbone": backbone, "strategy": strategy or "any", "estimate": Estimate()}
    return Candidate.model_validate({**arm, "verdict": verdict, "reason": reason})


def _unlikely(expectation: Expectation, leader: Probe) -> str | None:
    """Why a strategy isn't likely to bring a point, or ``None``."""
    if MOST_OF_THE_ERRORS * (1 - leader.accuracy) < WORTH_HAVING:
        return f"of {percent(1 - leader.accuracy)} errors not even a point can be hoped for"
    if NormalDist(expectation.gain, _bounded_sd(expectation, leader)).cdf(WORTH_HAVING) > 1 - LIKELY:
        return f"{100 * expectation.gain:+.1f} points expected, a point is unlikely"
    return None


def _bounded_sd(expectation: Expectation, leader: Probe) -> float:
    """Nobody can be surprised by more than the errors that there are."""
    return max(min(expectation.gain_sd, MOST_OF_THE_ERRORS * (1 - leader.accuracy) / 2), 1e-6)


def _expected_improvement(gain: float, sd: float) -> float:
    """Mean of what is gained if a loss can be turned down: Jones, Schonlau and Welch, 1998."""
    normal, z = NormalDist(), gain / max(sd, 1e-6)
    return gain * normal.cdf(z) + max(sd, 1e-6) * normal.pdf(z)


def _minutes(seconds: float) -> int:
    return max(1, -int(-1.2 * seconds // 60))
