"""Candidates: a backbone or an ensemble with a strategy, what to expect of it, and what it costs.

A ``Candidate`` is filled in stage by stage: the probe gives accuracy and costs, a strategy gives a recipe with its expected
gain, a trial replaces the expectation by a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, hypot, sqrt
from statistics import NormalDist
from typing import Final, Literal, NamedTuple

from automl_tl.contracts import Expectation
from automl_tl.errors import PluginError
from automl_tl.evaluation import design_effect, metric_value, wilson
from automl_tl.planning.comparison import compare, shrink
from automl_tl.planning.cost import (
    TIMING_S,
    TrainingCost,
    levels_mib,
    memory_mib,
    recipe_variants,
    seconds_of_probe,
    time_short,
    training_mib,
)
from automl_tl.planning.evidence import EvidenceCollector, Probe
from automl_tl.planning.limits import adapt_recipe, reject_backbone
from automl_tl.plugin_host import PLUS, Catalog, LoadedStrategy
from automl_tl.plugin_host.ensemble import Ensemble
from automl_tl.runtime.formatting import metric_name, metric_text, percent, percent_range
from automl_tl.training import Trial
from automl_tl.training.closed_form import DEFAULT_SOLVER
from automl_tl.values import BackboneCard, CandidateVerdict, Constraints, Estimate, Recipe

# Near-equal backbones are assumed to be equal, give or take this share of the errors, until the images tell them apart:
# ImageNet accuracy does not predict the order (decision 24; Fang et al., arXiv 2301.04644).
EQUAL_SD: Final = 0.15
LEVELS_GAIN: Final = 0.1  # share of the errors that multi-level features remove, and its standard deviation (decision 61)
LEVELS_SD: Final = 0.2
ENSEMBLE_GAIN: Final = 0.08  # share of the errors that each further member of an ensemble removes (decision 30)
SHIFT_SD: Final = 0.025  # test images differ from training images by more than chance: photographers, patients (decision 24)
GAIN_PER_S: Final = 0.03 / 60  # price of time without a budget: a minute must be expected to gain 3 pp
GAIN_PER_BUDGET: Final = 0.005  # price of a whole budget: 0.5 pp, as its time was granted (decision 42)
MAX_ERRORS_REMOVED: Final = 0.5  # share of the errors that fine-tuning may be expected to remove (decision 15)
CLOSED_FORM: Final = Recipe()  # no phases
NO_TRAINING: Final = TrainingCost(0.0, 0.0, 0.0)
MIN_VALIDATION: Final = 25  # images; with fewer the standard error of a trial exceeds 8 pp


class Option(NamedTuple):
    """A strategy with its recipe and its expectation for the backbone to fine-tune."""

    strategy: LoadedStrategy
    recipe: Recipe
    expectation: Expectation


@dataclass(frozen=True)
class Candidate:
    """A backbone with a strategy. Accuracies and gains are fractions of 1, or scores of the metric that is asked for."""

    probe: Probe = field(compare=False, repr=False)
    backbone: str
    accuracy: float  # expected on the test images
    accuracy_sd: float  # standard deviation of the test accuracy around it
    accuracy_source: str  # how it is known
    seconds: float  # from now to the published model
    latency_ms: float  # of one image
    size_mib: float  # of encoder and head
    memory_mib: float  # peak of the process
    reason: str = ""  # why to choose it
    strategy: str = ""  # empty until one is assigned
    recipe: Recipe = CLOSED_FORM
    behind: float = 0.0  # accuracy that the backbone's probe is behind the best probe
    levels_gain: float = 0.0  # accuracy that its multi-level features are ahead of the last ones
    gain: float = 0.0  # expected over the probe, before any trial
    gain_sd: float = 0.0  # prior standard deviation of it
    posterior_gain: float = 0.0  # expected over the probe, after its trial
    improvement: float = 0.0  # expected improvement over the best probe
    cost: TrainingCost = NO_TRAINING
    trial: Trial | None = field(default=None, compare=False, repr=False)  # the last one
    averaged_with: Probe | None = field(default=None, compare=False, repr=False)  # whose probabilities it is averaged with
    trained_s: float = 0.0  # spent in trials
    predicted_s: float | None = None  # ``seconds`` as predicted before any trial
    given_up: str | None = None  # why it is too expensive or dropped out of successive halving

    @property
    def name(self) -> str:
        """Strategy and backbone; the backbone alone before a strategy is assigned."""
        return f"{self.strategy} on {self.backbone}" if self.strategy else self.backbone

    @property
    def card(self) -> BackboneCard:
        """Card of the model's backbone: that of the probe, or an ensemble's if it is averaged."""
        other = self.averaged_with
        return self.probe.card if other is None else Ensemble([self.probe.backbone, other.backbone]).card

    @property
    def epochs(self) -> int:
        """Number of epochs of all phases."""
        return sum(phase.epochs for phase in self.recipe.phases)

    @property
    def estimate(self) -> Estimate:
        """Accuracy, with its 95% prediction interval, and costs, as a value of the plan."""
        margin, metric = 1.96 * self.accuracy_sd, self.probe.metric
        value, interval = _fraction(self.accuracy), (_fraction(self.accuracy - margin), _fraction(self.accuracy + margin))
        of_metric = {"accuracy": value, "accuracy_interval": interval}
        if metric != "accuracy":
            low, high = sorted(metric_value(metric, limit) for limit in interval)
            of_metric = {"metric": metric, "value": metric_value(metric, value), "value_interval": (low, high)}
        return Estimate(
            **of_metric,
            accuracy_source=self.accuracy_source,
            seconds=round(self.seconds if self.predicted_s is None else self.predicted_s, 1),
            latency_ms=round(self.latency_ms, 1),
            size_mib=round(self.size_mib, 2),
            memory_mib=self.memory_mib,
        )

    def judge(self, verdict: Literal["chosen", "tied", "rejected", "not_tried"], reason: str) -> CandidateVerdict:
        """Return a verdict on this candidate, with its estimate.

        Args:
            verdict: what became of it.
            reason: why, for the user.
        """
        return CandidateVerdict(
            backbone=self.backbone, strategy=self.strategy, estimate=self.estimate, verdict=verdict, reason=reason
        )


def _fraction(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def probe_candidates(evidence: EvidenceCollector, probes: Sequence[Probe], reference: Probe) -> list[Candidate]:
    """Return a candidate without a strategy for each probe of a backbone or ensemble.

    Args:
        evidence: gives the numbers of images and the time to publish.
        probes: on the same images.
        reference: its accuracy is taken as measured; differences from it are shrunk toward their expectation.
    """
    error_rate = max(1 - reference.score.value, 1 / len(reference.labels))
    metric, groups, candidates = evidence.metric, evidence.sample().groups, []
    # All candidates share the process that probes the levels of each backbone, and then the ensemble of all of them.
    pooled = {name for probe in probes if probe.parts for name in probe.name.split(PLUS)}
    widths = [probe.features.shape[1] for probe in probes if probe.parts]
    has_ensembles = any(PLUS in probe.name for probe in probes) or bool(evidence.constraints.backbones)
    width = max(widths, default=0) if has_ensembles else sum(widths)
    process_mib = levels_mib(len(pooled), evidence.workload.num_learning, width)
    for probe in probes:
        # 1) Accuracy: the reference's, plus the posterior difference. An ensemble is expected to be better, a backbone equal.
        measured, (accuracy, gain_sd) = probe.score, (reference.score.value, 0.0)
        if probe is not reference:
            comparison = compare(probe.probabilities, reference.probabilities, reference.labels, metric)
            prior, prior_sd = ENSEMBLE_GAIN * probe.name.count(PLUS), EQUAL_SD
            if probe.parts:
                prior, prior_sd = prior + LEVELS_GAIN, LEVELS_SD
            scaled = prior * error_rate, prior_sd * error_rate
            gain, gain_sd = shrink(comparison.difference, comparison.standard_error, *scaled)
            accuracy += gain
        # 2) Costs. Features of the probed images are cached, but for ensembles. Without time for all images, the cheapest
        #    backbone learns from those; another would learn from fewer images than the cheapest can.
        num_images, work = len(probe.labels), evidence.workload
        seconds_of = partial(
            seconds_of_probe,
            probe.speed,
            feature_dim=probe.features.shape[1],
            num_cached=num_images if probe.is_cached else 0,
            publishing_s=evidence.workspace.publishing_s(probe.size_mib),
        )
        seconds = seconds_of(work)
        if seconds > evidence.seconds_left and probe.speed == reference.speed:
            seconds = seconds_of(replace(work, num_train=num_images, num_validation=0))
        effect, share = design_effect(measured.contributions, groups), measured.num_effective / num_images
        num_test = evidence.profile.num_test_images * share
        own_sd = predictive_sd(measured.value, measured.num_effective, num_test, effect)
        candidates.append(
            Candidate(
                probe=probe,
                backbone=probe.name,
                accuracy=_fraction(accuracy),
                # A choice between candidates is uncertain, too: the difference that decides it has an error of its own.
                accuracy_sd=hypot(own_sd, gain_sd),
                accuracy_source=f"5-fold probe of {num_images} images: {_out_of_fold_text(probe)}",
                seconds=seconds,
                latency_ms=probe.speed.latency_ms,
                size_mib=probe.size_mib,
                memory_mib=ceil(memory_mib(probe.card.num_parameters) + process_mib),
            )
        )
    return candidates


def _out_of_fold_text(probe: Probe) -> str:
    num_images = len(probe.labels)
    interval = percent_range(wilson(round(probe.accuracy * num_images), num_images))
    text = f"{percent(probe.accuracy)} ({interval})"
    if probe.metric == "accuracy":
        return text
    value = metric_text(probe.metric, metric_value(probe.metric, probe.score.value))
    return f"{metric_name(probe.metric)} {value}, accuracy {text}"


def predictive_sd(accuracy: float, num_images: float, num_test: float, effect: float = 1.0) -> float:
    """Return the standard deviation of a test accuracy: sampling error of both counts, and the shift between the splits.

    Source: adjusted share of Agresti and Coull 1998.

    Args:
        accuracy: out of fold, 0 to 1; or the score of another metric.
        num_images: that it was measured on; of another metric, the effective number.
        num_test: number of test images, likewise.
        effect: design effect: how many images count as one, as images of a group resemble each other.
    """
    share = (accuracy * num_images + 2) / (num_images + 4)
    return sqrt(share * (1 - share) * effect * (1 / num_images + 1 / max(num_test, 1)) + SHIFT_SD**2)


def list_candidates(
    catalog: Catalog,
    evidence: EvidenceCollector,
    strategies: Sequence[LoadedStrategy],
    backbones: Sequence[Candidate],
    base: Candidate,
    rule: Callable[[Sequence[Candidate]], Candidate],
) -> tuple[list[Candidate], list[Candidate], list[CandidateVerdict], list[str]]:
    """Combine the probed backbones and their ensembles with the strategies that suit the data. Ctrl-C ends it early.

    Args:
        catalog: knows ensembles that failed before.
        evidence: of the dataset.
        strategies: to consider.
        backbones: candidates without a strategy, cheapest first; the first is the reference for ensembles.
        base: backbone to fine-tune.
        rule: chooses among candidates; training leaves the time to publish what it chooses without training.

    Returns:
        Closed-form candidates; candidates worth training, best value first; verdicts on the others; budgets to try these.
    """
    options, rejected = _suitable_options(evidence, strategies, base)
    frozen = _closed_form_candidates(evidence, options, backbones)
    trained, changes = list[Candidate](), list[str]()
    with evidence.interruptible(frozen):
        best = rule(backbones)
        ensembles, expensive = _ensemble_candidates(catalog, evidence, options, backbones, best)
        frozen, rejected = [*frozen, *ensembles], [*rejected, *expensive]
        best = rule(frozen) if frozen else best
        trained, untried, changes = _fine_tuning_candidates(evidence, options, base, best, must_train=not frozen)
        rejected = [*rejected, *untried]
    return frozen, trained, rejected, changes


def best_gain(expectations: Iterable[Expectation]) -> float:
    """Return the largest gain of the strategies that suit the data; 0 if none does."""
    return max((expectation.gain for expectation in expectations if expectation.suits), default=0.0)


def _suitable_options(
    evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy], base: Candidate
) -> tuple[list[Option], list[CandidateVerdict]]:
    """Return the strategies that suit the data or were requested, for the backbone of ``base``, and verdicts on the others.

    The best strategy is expected to gain at least what the levels of the backbone gain, the others in proportion (decision 72).
    """
    situation = evidence.situation(base.probe)
    expectations = [strategy.expect(situation) for strategy in strategies]
    gain = best_gain(expectations)
    factor = max(base.levels_gain / gain, 1.0) if gain > 0 else 1.0
    options, rejected = [], []
    for strategy, stated in zip(strategies, expectations, strict=True):
        expectation = stated.model_copy(update={"gain": factor * stated.gain}) if stated.gain > 0 else stated
        if expectation.suits or is_requested(evidence.constraints):
            recipe = adapt_recipe(strategy.recipe(situation), evidence.constraints)
            options.append(Option(strategy, recipe, expectation))
        else:
            rejected.append(reject_backbone(base.backbone, expectation.why, strategy=strategy.name))
    return options, rejected


def _closed_form_candidates(
    evidence: EvidenceCollector, options: Sequence[Option], candidates: Sequence[Candidate]
) -> list[Candidate]:
    """Combine each candidate with each option without phases; another solver than the probes' is probed as well."""
    combined = []
    for strategy, recipe, _ in (option for option in options if not option.recipe.phases):
        solver = recipe.head.solver or DEFAULT_SOLVER
        for candidate in candidates:
            probe, accuracy = candidate.probe, candidate.accuracy
            if solver != DEFAULT_SOLVER:
                other = evidence.probe(probe.backbone, solver=solver)
                accuracy += compare(other.probabilities, probe.probabilities, probe.labels, probe.metric).difference
            why = strategy.expect(evidence.situation(probe)).why
            combined.append(replace(candidate, strategy=strategy.name, recipe=recipe, accuracy=_fraction(accuracy), reason=why))
    return combined


def _ensemble_candidates(
    catalog: Catalog, evidence: EvidenceCollector, options: Sequence[Option], backbones: Sequence[Candidate], best: Candidate
) -> tuple[list[Candidate], list[CandidateVerdict]]:
    """Return ensembles with a default closed-form head that gain enough for their extra seconds, and verdicts on the others."""
    solvers = (None, DEFAULT_SOLVER)
    default = [option for option in options if not option.recipe.phases and option.recipe.head.solver in solvers]
    if not default:
        return [], []
    probes = [backbone.probe for backbone in backbones]
    ensembles = probe_candidates(evidence, _probe_ensembles(catalog, evidence, probes), probes[0])
    worthwhile, rejected = [], []
    for candidate in _closed_form_candidates(evidence, default, ensembles):
        gain, seconds = candidate.accuracy - best.accuracy, candidate.seconds - best.seconds
        if gain < _price_per_s(evidence.constraints) * seconds:
            rejected.append(reject_backbone(candidate.backbone, _too_expensive(gain, seconds, evidence.constraints)))
        else:
            worthwhile.append(candidate)
    return worthwhile, rejected


def _probe_ensembles(catalog: Catalog, evidence: EvidenceCollector, probes: Sequence[Probe]) -> list[Probe]:
    """Probe ensembles of the best two backbones, the best three, and so on; none if the user listed backbones.

    All members have multi-level features, if each backbone does.
    """
    if evidence.constraints.backbones:
        return []
    multi_level = [probe for probe in probes if probe.parts]
    probes = multi_level if 2 * len(multi_level) == len(probes) else [probe for probe in probes if not probe.parts]
    by_accuracy = sorted(range(len(probes)), key=lambda at: -probes[at].score.value)
    ensembles = []
    for count in range(2, len(probes) + 1):
        members = [probes[at] for at in sorted(by_accuracy[:count])]  # the cheapest first
        if Ensemble([member.backbone for member in members]).card.name not in catalog.excluded:
            ensembles.append(evidence.probe_ensemble(members))
    return ensembles


def _fine_tuning_candidates(
    evidence: EvidenceCollector, options: Sequence[Option], base: Candidate, best: Candidate, *, must_train: bool
) -> tuple[list[Candidate], list[CandidateVerdict], list[str]]:
    """Return what is worth training, verdicts on the rest, and sufficient budgets; with ``must_train`` at least one."""
    candidates, rejected, changes = list[Candidate](), list[CandidateVerdict](), list[str]()
    for option in (option for option in options if option.recipe.phases):
        # 1) Objections that need no measurement.
        objection = None if is_requested(evidence.constraints) else _out_of_reach(evidence, base, option.expectation)
        if objection and not must_train:
            rejected.append(reject_backbone(base.backbone, objection, strategy=option.strategy.name))
            continue
        # 2) What of the recipe fits the budget, by the measured training speed, and whether it is worth its time.
        try:
            candidate = _affordable(evidence, option, base, best)
        except PluginError as error:
            rejected.append(reject_backbone(base.backbone, str(error), strategy=option.strategy.name))
            continue
        if candidate.given_up and not objection:
            changes.append(_sufficient_budget(evidence, candidate))
        candidates.append(replace(candidate, given_up=objection or candidate.given_up))
    # 3) Best value for time first; the least expensive one if something must be trained.
    candidates.sort(key=lambda candidate: candidate.improvement / candidate.seconds, reverse=True)
    if must_train and candidates and all(candidate.given_up for candidate in candidates):
        candidates[0] = replace(candidates[0], given_up=None)
    worthwhile = [candidate for candidate in candidates if candidate.given_up is None]
    rejected += [candidate.judge("not_tried", candidate.given_up) for candidate in candidates if candidate.given_up]
    return worthwhile, rejected, changes


def is_worth_training(
    evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy], base: Candidate, best: Candidate
) -> bool:
    """Return whether there is time to train ``base`` in full with one of the strategies, and it is worth it.

    Args:
        evidence: of the dataset.
        strategies: to consider.
        base: backbone to fine-tune.
        best: backbone that is published if a trial fails.
    """
    requested = is_requested(evidence.constraints)
    for option in _promising(evidence, strategies, base):
        with suppress(PluginError):  # reported when it is trained
            candidate = _fine_tuned(evidence, option, base)
            fits = _needed_s(candidate, best) <= evidence.seconds_left
            if fits and (requested or not _not_worth(candidate, evidence.constraints)):
                return True
    return False


def _promising(evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy], base: Candidate) -> Iterator[Option]:
    """Yield the options with phases that are not out of reach for ``base``, or were requested."""
    requested = is_requested(evidence.constraints)
    for option in _suitable_options(evidence, strategies, base)[0]:
        if option.recipe.phases and (requested or not _out_of_reach(evidence, base, option.expectation)):
            yield option


def _affordable(evidence: EvidenceCollector, option: Option, base: Candidate, best: Candidate) -> Candidate:
    """Return the first variant of the recipe that fits the budget; ``given_up`` if none fits or it is not worth its time."""
    constraints, left_s = evidence.constraints, evidence.seconds_left
    if is_requested(constraints):
        return _fine_tuned(evidence, option, base)
    variants = recipe_variants(option.recipe, option.expectation)
    for recipe, expectation in variants if constraints.budget_s is not None else [next(variants)]:
        candidate = _fine_tuned(evidence, Option(option.strategy, recipe, expectation), base)
        if _needed_s(candidate, best) <= left_s:
            return replace(candidate, given_up=_not_worth(candidate, constraints))
    return replace(candidate, given_up=f"needs about {time_short(_needed_s(candidate, best), left_s)}")


def _fine_tuned(evidence: EvidenceCollector, option: Option, base: Candidate) -> Candidate:
    """Return ``base`` with a strategy: its expected gain, and its cost from the measured training speed."""
    strategy, recipe, expectation = option
    cost, gain_sd = evidence.training_cost(base.probe, recipe), _gain_sd(expectation, base)
    training = evidence.training_speed(base.probe.backbone)
    return replace(
        base,
        strategy=strategy.name,
        recipe=recipe,
        accuracy=_fraction(base.accuracy + expectation.gain),
        accuracy_sd=hypot(base.accuracy_sd, expectation.gain_sd),
        accuracy_source=f"{base.accuracy_source}, plus the strategy's expected gain",
        seconds=cost.within(evidence.seconds_left),
        memory_mib=base.memory_mib + training_mib(recipe, training, base.probe.card.num_parameters),
        reason=expectation.why + base.reason,
        gain=expectation.gain,
        gain_sd=gain_sd,
        improvement=_improvement(evidence, base, expectation),
        cost=cost,
    )


def _out_of_reach(evidence: EvidenceCollector, base: Candidate, expectation: Expectation) -> str | None:
    """Return why not even the shortest training is possible or worth it, before its speed is measured, or ``None``."""
    if evidence.num_validation < MIN_VALIDATION:
        return f"{evidence.num_validation} validation images are too few to measure a gain"
    # No recipe can do without timing its steps, every image once, and features of the new weights.
    num_passes, speed = 2 * evidence.profile.num_images + evidence.profile.num_test_images, base.probe.speed
    publishing_s = evidence.workspace.publishing_s(base.probe.size_mib)
    min_s = TIMING_S + num_passes * speed.image_s + publishing_s
    if min_s > evidence.seconds_left:
        return f"needs more than {time_short(min_s, evidence.seconds_left)}"
    if _improvement(evidence, base, expectation) < _price_per_s(evidence.constraints) * min_s:
        return _too_expensive(expectation.gain - base.behind, min_s, evidence.constraints, at_least="more than ")
    return None


def _not_worth(candidate: Candidate, constraints: Constraints) -> str | None:
    """Return why the expected improvement is not worth the seconds, or ``None``."""
    if candidate.improvement < _price_per_s(constraints) * candidate.seconds:
        return _too_expensive(candidate.gain - candidate.behind, candidate.seconds, constraints)
    return None


def _sufficient_budget(evidence: EvidenceCollector, candidate: Candidate) -> str:
    """Return the budget with which ``candidate`` would be tried: it fits, with 20% to spare, and is worth its time."""
    worth_s = candidate.seconds * GAIN_PER_BUDGET / candidate.improvement
    seconds = max(worth_s, candidate.seconds + evidence.workspace.deadline.spent_s)
    minutes = max(1, -int(-1.2 * seconds // 60))
    gain = f"expected gain {100 * candidate.gain:+.1f} ± {100 * candidate.gain_sd:.1f} pp"
    return f"with --budget {minutes}m, {candidate.strategy} is tried: {gain}"


def _needed_s(candidate: Candidate, best: Candidate) -> float:
    """Return the seconds to try ``candidate``, and then to publish either it or the best probe."""
    return max(candidate.seconds, candidate.cost.trial_s + best.seconds)


def _improvement(evidence: EvidenceCollector, base: Candidate, expectation: Expectation) -> float:
    gain, gain_sd = expectation.gain - base.behind, _gain_sd(expectation, base)
    if base.behind:  # then it can be averaged with the best probe
        gain += ENSEMBLE_GAIN * (1 - base.accuracy - base.behind)
    return expected_improvement(gain, gain_sd, base.probe.score.value, evidence.num_validation)


def expected_improvement(gain: float, gain_sd: float, probe_accuracy: float, num_validation: int) -> float:
    """Return the expected improvement over the best probe: a loss can be turned down, as far as a trial can tell it.

    Source: Jones, Schonlau and Welch 1998, applied to the posterior mean after the trial, whose standard deviation is
    ``gain_sd**2 / sqrt(gain_sd**2 + error**2)`` (Raiffa and Schlaifer 1961).

    Args:
        gain: expected, over the best probe.
        gain_sd: prior standard deviation of ``gain``.
        probe_accuracy: 0 to 1.
        num_validation: images of a trial; it disagrees with the probe on as many of them as the probe gets wrong.
    """
    count = max(num_validation, 1)
    error = sqrt(max(1 - probe_accuracy, 1 / count) / count)
    posterior_sd, normal = max(gain_sd**2 / hypot(gain_sd, error), 1e-6), NormalDist()
    return gain * normal.cdf(gain / posterior_sd) + posterior_sd * normal.pdf(gain / posterior_sd)


def _gain_sd(expectation: Expectation, base: Candidate) -> float:
    """Return the prior standard deviation of the gain, capped by the probe's error rate."""
    return max(min(expectation.gain_sd, MAX_ERRORS_REMOVED * (1 - base.probe.score.value) / 2), 1e-6)


def is_requested(constraints: Constraints) -> bool:
    """Return whether the user chose the strategies, so that none is too expensive."""
    return bool(constraints.strategies or constraints.hidden_dims)


def _price_per_s(constraints: Constraints) -> float:
    """Return the accuracy that each second must be expected to gain."""
    return GAIN_PER_BUDGET / constraints.budget_s if constraints.budget_s else GAIN_PER_S


def _too_expensive(gain: float, seconds: float, constraints: Constraints, *, at_least: str = "") -> str:
    hint = "of this budget" if constraints.budget_s else "(raise --budget to try it)"
    return f"expected gain of {100 * gain:+.1f} pp is not worth {at_least}{seconds / 60:.1f} min {hint}"
