"""Candidates: a backbone or an ensemble with a strategy, what to expect of it, and what it costs.

A ``Candidate`` is filled in stage by stage: the probe gives accuracy and costs, a strategy gives a recipe with its expected
gain, a trial replaces the expectation by a measurement. Each stage returns new candidates and the verdicts on the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import hypot, inf, sqrt
from statistics import NormalDist
from typing import Final, Literal

from automl_tl.contracts import Expectation
from automl_tl.errors import PluginError
from automl_tl.evaluation import wilson
from automl_tl.planning.comparison import compare, shrink
from automl_tl.planning.cost import (
    TrainingCost,
    memory_mib,
    min_seconds_of_training,
    recipe_variants,
    seconds_of_probe,
    time_short,
)
from automl_tl.planning.limits import adapt_recipe, reject_backbone
from automl_tl.planning.probe import EvidenceCollector, Probe, probe_ensembles
from automl_tl.plugin_host import PLUS, Catalog, LoadedStrategy
from automl_tl.runtime.formatting import percent, percent_range
from automl_tl.training import Trial
from automl_tl.training.run import DEFAULT_SOLVER
from automl_tl.values import CandidateVerdict, Constraints, Estimate, Interval, Recipe

__all__ = [
    "Candidate",
    "closed_form_candidates",
    "ensemble_candidates",
    "expected_improvement",
    "fine_tuning_candidates",
    "is_requested",
    "is_worth_training",
    "min_training_s",
    "predictive_sd",
    "probe_candidates",
    "suitable_recipes",
    "trial_error",
]

# Near-equal backbones are assumed to be equal, give or take this share of the errors, until the images tell them apart:
# ImageNet accuracy does not predict the order (decision 24; Fang et al., arXiv 2301.04644).
EQUAL_SD: Final = 0.15
ENSEMBLE_GAIN: Final = 0.08  # share of the errors that each further member of an ensemble removes (decision 30)
# Test images differ from training images by more than chance: photographers, plates, patients. Measured on 30 pairs of ten
# datasets and three backbones (decision 24).
SHIFT_SD: Final = 0.025
GAIN_PER_S: Final = 0.03 / 60  # price of time without a budget: a minute must be expected to gain 3 pp
GAIN_PER_BUDGET: Final = 0.005  # price of a whole budget: 0.5 pp, as its time was granted (decision 42)
MAX_ERRORS_REMOVED: Final = 0.5  # share of the errors that fine-tuning may be expected to remove (planner notes, section 2)
CLOSED_FORM: Final = Recipe()  # no phases
NO_TRAINING: Final = TrainingCost(0.0, 0.0, 0.0)
MIN_VALIDATION: Final = 25  # images; with fewer the standard error of a trial exceeds 8 pp


@dataclass(frozen=True)
class Candidate:
    """A backbone with a strategy. Accuracies and gains are fractions of 1.

    Attributes:
        probe: of the backbone.
        backbone: its name.
        accuracy: expected on the test images.
        accuracy_sd: standard deviation of the test accuracy around ``accuracy``.
        accuracy_source: how ``accuracy`` is known.
        seconds: from now to the published model.
        latency_ms: of one image.
        size_mib: of encoder and head.
        memory_mib: peak of the process.
        reason: why to choose it.
        strategy: name; empty until one is assigned.
        recipe: of the strategy.
        behind: accuracy that the backbone's probe is behind the best probe.
        gain: expected over the probe, before any trial.
        gain_sd: prior standard deviation of ``gain``.
        improvement: expected improvement over the best probe.
        cost: seconds of training.
        trial: validation results so far.
        trained_s: seconds spent in trials.
        predicted_s: ``seconds`` as predicted before any trial.
        given_up: why it dropped out of successive halving.
    """

    probe: Probe = field(compare=False, repr=False)
    backbone: str
    accuracy: float
    accuracy_sd: float
    accuracy_source: str
    seconds: float
    latency_ms: float
    size_mib: float
    memory_mib: float
    reason: str = ""
    strategy: str = ""
    recipe: Recipe = CLOSED_FORM
    behind: float = 0.0
    gain: float = 0.0
    gain_sd: float = 0.0
    improvement: float = 0.0
    cost: TrainingCost = NO_TRAINING
    trial: Trial | None = field(default=None, compare=False, repr=False)
    trained_s: float = 0.0
    predicted_s: float | None = None
    given_up: str | None = None

    @property
    def name(self) -> str:
        """Strategy and backbone; the backbone alone before a strategy is assigned."""
        return f"{self.strategy} on {self.backbone}" if self.strategy else self.backbone

    @property
    def epochs(self) -> int:
        """Number of epochs of all phases."""
        return sum(phase.epochs for phase in self.recipe.phases)

    @property
    def interval(self) -> Interval:
        """95% prediction interval of the test accuracy."""
        margin = 1.96 * self.accuracy_sd
        return (max(0.0, self.accuracy - margin), min(1.0, self.accuracy + margin))

    @property
    def estimate(self) -> Estimate:
        """Accuracy and costs as a value of the plan."""
        return Estimate(
            accuracy=_fraction(self.accuracy),
            accuracy_interval=self.interval,
            accuracy_source=self.accuracy_source,
            seconds=round(self.seconds if self.predicted_s is None else self.predicted_s, 1),
            latency_ms=round(self.latency_ms, 1),
            size_mib=round(self.size_mib, 2),
            memory_mib=self.memory_mib,
        )

    def judge(self, verdict: Literal["chosen", "tied", "rejected", "not_tried"], reason: str) -> CandidateVerdict:
        """Return the verdict on this candidate, with its estimate.

        Args:
            verdict: of the stage.
            reason: for the user.
        """
        return CandidateVerdict(
            backbone=self.backbone, strategy=self.strategy, estimate=self.estimate, verdict=verdict, reason=reason
        )


def _fraction(value: float) -> float:
    return min(max(value, 0.0), 1.0)


# ------------------------------------------------------------------------------------------------- frozen backbones


def probe_candidates(evidence: EvidenceCollector, probes: Sequence[Probe], reference: Probe) -> list[Candidate]:
    """Return a candidate without a strategy for each probe; measured differences are shrunk toward their expectation.

    Args:
        evidence: numbers of images.
        probes: of backbones or ensembles.
        reference: probe whose accuracy is taken as measured.
    """
    error_rate = max(1 - reference.accuracy, 1 / len(reference.labels))
    candidates = []
    for probe in probes:
        # 1) Accuracy: the reference's, plus the posterior difference. An ensemble is expected to be better, a backbone equal.
        accuracy = reference.accuracy
        if probe is not reference:
            found = compare(probe.probabilities, reference.probabilities, reference.labels)
            prior = ENSEMBLE_GAIN * probe.name.count(PLUS) * error_rate
            accuracy += shrink(found.difference, found.standard_error, prior, EQUAL_SD * error_rate)[0]
        # 2) Costs. Features of the probed images are cached, but for ensembles.
        num_images = len(probe.labels)
        seconds = seconds_of_probe(
            probe.speed,
            evidence.workload,
            feature_dim=probe.features.shape[1],
            num_cached=num_images if probe.is_cached else 0,
            publishing_s=evidence.workspace.publishing_s(probe.size_mib),
        )
        interval = percent_range(wilson(round(probe.accuracy * num_images), num_images))
        candidates.append(
            Candidate(
                probe=probe,
                backbone=probe.name,
                accuracy=_fraction(accuracy),
                accuracy_sd=predictive_sd(probe.accuracy, num_images, evidence.profile.num_test_images),
                accuracy_source=f"5-fold probe of {num_images} images: {percent(probe.accuracy)} ({interval})",
                seconds=seconds,
                latency_ms=probe.speed.latency_ms,
                size_mib=probe.size_mib,
                memory_mib=memory_mib(CLOSED_FORM, None, probe.card.num_parameters),
            )
        )
    return candidates


def predictive_sd(accuracy: float, num_images: int, num_test: int) -> float:
    """Return the standard deviation of a test accuracy: sampling error of both counts, and the shift between the splits.

    Args:
        accuracy: out of fold.
        num_images: that ``accuracy`` was measured on.
        num_test: images in the test split.

    Source: adjusted share of Agresti and Coull 1998.
    """
    share = (accuracy * num_images + 2) / (num_images + 4)
    return sqrt(share * (1 - share) * (1 / num_images + 1 / max(num_test, 1)) + SHIFT_SD**2)


def suitable_recipes(
    evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy], base: Candidate
) -> tuple[dict[str, Recipe], list[CandidateVerdict]]:
    """Return the recipes, by strategy, of the strategies that suit the data or were requested, and verdicts on the others.

    Args:
        evidence: facts about the images.
        strategies: to ask.
        base: backbone to fine-tune.
    """
    situation = evidence.situation(base.probe.card, base.probe.num_blocks, base.probe)
    recipes, rejected = {}, []
    for strategy in strategies:
        expectation = strategy.expect(situation)
        if expectation.suits or is_requested(evidence.constraints):
            recipes[strategy.name] = adapt_recipe(strategy.recipe(situation), evidence.constraints)
        else:
            rejected.append(_not_tried(base, strategy, expectation.why))
    return recipes, rejected


def closed_form_candidates(
    evidence: EvidenceCollector,
    strategies: Sequence[LoadedStrategy],
    recipes: Mapping[str, Recipe],
    candidates: Sequence[Candidate],
) -> list[Candidate]:
    """Combine each backbone with each strategy whose recipe has no phases.

    Args:
        evidence: probes once more where a recipe has another solver than the probes.
        strategies: in order of the result.
        recipes: by strategy; those with phases are skipped.
        candidates: without a strategy.
    """
    combined = []
    for strategy in strategies:
        if strategy.name not in recipes or recipes[strategy.name].phases:
            continue
        solver = recipes[strategy.name].head.solver or DEFAULT_SOLVER
        for candidate in candidates:
            probe, accuracy = candidate.probe, candidate.accuracy
            if solver != DEFAULT_SOLVER:
                other = evidence.probe(probe.backbone, solver=solver)
                difference = compare(other.probabilities, probe.probabilities, probe.labels).difference
                accuracy = _fraction(accuracy + difference)
            why = strategy.expect(evidence.situation(probe.card, probe.num_blocks, probe)).why
            recipe = recipes[strategy.name]
            combined.append(replace(candidate, strategy=strategy.name, recipe=recipe, accuracy=accuracy, reason=why))
    return combined


def ensemble_candidates(
    catalog: Catalog,
    evidence: EvidenceCollector,
    strategies: Sequence[LoadedStrategy],
    recipes: Mapping[str, Recipe],
    backbones: Sequence[Candidate],
    best: Candidate,
) -> tuple[list[Candidate], list[CandidateVerdict]]:
    """Combine ensembles with each strategy that has the default closed-form head.

    Args:
        catalog: knows ensembles that failed before.
        evidence: probes the ensembles.
        strategies: in order of the result.
        recipes: by strategy.
        backbones: to combine; the first is the reference.
        best: best single backbone.

    Returns:
        Ensembles that gain enough over ``best`` for the extra seconds they take, and verdicts on the others.
    """
    default = {
        name: recipe for name, recipe in recipes.items() if not recipe.phases and recipe.head.solver in (None, DEFAULT_SOLVER)
    }
    if not default:
        return [], []
    probes = [backbone.probe for backbone in backbones]
    ensembles = probe_candidates(evidence, probe_ensembles(catalog, evidence, probes), probes[0])
    kept, rejected = [], []
    for candidate in closed_form_candidates(evidence, strategies, default, ensembles):
        gain, seconds = candidate.accuracy - best.accuracy, candidate.seconds - best.seconds
        if gain < _price_per_s(evidence.constraints) * seconds:
            rejected.append(reject_backbone(candidate.backbone, _too_expensive(gain, seconds, evidence.constraints)))
        else:
            kept.append(candidate)
    return kept, rejected


# ------------------------------------------------------------------------------------------------------- fine-tuning


def fine_tuning_candidates(
    evidence: EvidenceCollector,
    strategies: Sequence[LoadedStrategy],
    recipes: Mapping[str, Recipe],
    base: Candidate,
    best: Candidate,
    *,
    must_train: bool,
) -> tuple[list[Candidate], list[CandidateVerdict], list[str]]:
    """Return the strategies that are worth training, best value for time first.

    Args:
        evidence: measures training speeds.
        strategies: to consider.
        recipes: by strategy; those without phases are skipped.
        base: backbone to fine-tune.
        best: best probe, published if a trial fails.
        must_train: return at least one, if any can be trained.

    Returns:
        The worthwhile candidates; verdicts on the others; budgets with which others would be tried.
    """
    worthwhile: list[Candidate] = []
    expensive: list[tuple[Candidate, str]] = []
    rejected, changes = [], []
    for strategy, recipe, expectation in _trained(evidence, strategies, recipes, base):
        # 1) Objections that need no measurement.
        objection = None if is_requested(evidence.constraints) else _out_of_reach(evidence, base, expectation)
        if objection and not must_train:
            rejected.append(_not_tried(base, strategy, objection))
            continue
        # 2) What of the recipe fits the budget, by the measured training speed, and whether it is worth its time.
        try:
            candidate, too_expensive = _affordable(evidence, strategy, recipe, expectation, base, best)
        except PluginError as error:
            rejected.append(_not_tried(base, strategy, str(error)))
            continue
        if too_expensive and not objection:
            changes.append(_sufficient_budget(evidence, candidate))
        if reason := objection or too_expensive:
            expensive.append((candidate, reason))
        else:
            worthwhile.append(candidate)
    # 3) Best value for time first; the least expensive one if something must be trained.
    worthwhile.sort(key=_value, reverse=True)
    expensive.sort(key=lambda each: _value(each[0]), reverse=True)
    if must_train and not worthwhile and expensive:
        worthwhile = [expensive.pop(0)[0]]
    return worthwhile, [*rejected, *(candidate.judge("not_tried", reason) for candidate, reason in expensive)], changes


def is_worth_training(
    evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy], base: Candidate, best: Candidate
) -> bool:
    """Return whether there is time to train one of the strategies in full, and it is worth it.

    Args:
        evidence: measures training speeds.
        strategies: to consider.
        base: backbone to fine-tune.
        best: best probe, published if a trial fails.
    """
    recipes, _ = suitable_recipes(evidence, strategies, base)
    requested = is_requested(evidence.constraints)
    for strategy, recipe, expectation in _trained(evidence, strategies, recipes, base):
        if not requested and _out_of_reach(evidence, base, expectation):
            continue
        with suppress(PluginError):  # reported when it is trained
            candidate = _fine_tuned(evidence, strategy, recipe, expectation, base)
            fits = _needed_s(candidate, best) <= evidence.seconds_left
            if fits and (requested or not _not_worth(candidate, evidence.constraints)):
                return True
    return False


def min_training_s(evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy], probe: Probe) -> float | None:
    """Return the least seconds of training that promises more than an ensemble's further member, or ``None``.

    Args:
        evidence: measures training speeds.
        strategies: to consider.
        probe: of the backbone to fine-tune.
    """
    base = probe_candidates(evidence, [probe], probe)[0]
    recipes, _ = suitable_recipes(evidence, strategies, base)
    seconds = []
    for strategy, recipe, expectation in _trained(evidence, strategies, recipes, base):
        if _out_of_reach(evidence, base, expectation):
            continue
        *_, (shortest, expected) = recipe_variants(recipe, expectation)
        if expected.gain > ENSEMBLE_GAIN * (1 - probe.accuracy):
            with suppress(PluginError):  # reported when it is trained
                seconds.append(_fine_tuned(evidence, strategy, shortest, expected, base).cost.min_s)
    least_s = min(seconds, default=inf)
    return least_s if least_s <= evidence.seconds_left else None


def _trained(
    evidence: EvidenceCollector, strategies: Sequence[LoadedStrategy], recipes: Mapping[str, Recipe], base: Candidate
) -> list[tuple[LoadedStrategy, Recipe, Expectation]]:
    """Return the strategies whose recipes train, with what they expect on ``base``."""
    situation = evidence.situation(base.probe.card, base.probe.num_blocks, base.probe)
    trained = [each for each in strategies if each.name in recipes and recipes[each.name].phases]
    return [(each, recipes[each.name], each.expect(situation)) for each in trained]


def _affordable(
    evidence: EvidenceCollector,
    strategy: LoadedStrategy,
    recipe: Recipe,
    expectation: Expectation,
    base: Candidate,
    best: Candidate,
) -> tuple[Candidate, str | None]:
    """Return the first variant of the recipe that fits the budget, and why it is too expensive, or ``None``."""
    requested, has_budget = is_requested(evidence.constraints), evidence.constraints.budget_s is not None
    variants = recipe_variants(recipe, expectation) if has_budget and not requested else [(recipe, expectation)]
    for variant, expected in variants:
        candidate = _fine_tuned(evidence, strategy, variant, expected, base)
        if requested:
            return candidate, None
        if _needed_s(candidate, best) <= evidence.seconds_left:
            return candidate, _not_worth(candidate, evidence.constraints)
    return candidate, f"needs about {time_short(_needed_s(candidate, best), evidence.seconds_left)}"


def _fine_tuned(
    evidence: EvidenceCollector, strategy: LoadedStrategy, recipe: Recipe, expectation: Expectation, base: Candidate
) -> Candidate:
    """Return ``base`` with a strategy: its expected gain, and its cost from the measured training speed."""
    cost, gain_sd = evidence.training_cost(base.probe, recipe), _gain_sd(expectation, base)
    training, num_parameters = evidence.training_speed(base.probe.backbone), base.probe.card.num_parameters
    return replace(
        base,
        strategy=strategy.name,
        recipe=recipe,
        accuracy=_fraction(base.accuracy + expectation.gain),
        accuracy_sd=(base.accuracy_sd**2 + expectation.gain_sd**2) ** 0.5,
        accuracy_source=f"{base.accuracy_source}, plus the strategy's expected gain",
        seconds=cost.within(evidence.seconds_left),
        memory_mib=memory_mib(recipe, training, num_parameters),
        reason=expectation.why + base.reason,
        gain=expectation.gain,
        gain_sd=gain_sd,
        improvement=_improvement(evidence, base, expectation.gain, gain_sd),
        cost=cost,
    )


def _out_of_reach(evidence: EvidenceCollector, base: Candidate, expectation: Expectation) -> str | None:
    """Return why not even the shortest training is possible or worth it, before its speed is measured, or ``None``."""
    if evidence.num_validation < MIN_VALIDATION:
        return f"{evidence.num_validation} validation images are too few to measure a gain"
    publishing_s = evidence.workspace.publishing_s(base.probe.size_mib)
    min_s = min_seconds_of_training(base.probe.speed, evidence.workload, publishing_s=publishing_s)
    if min_s > evidence.seconds_left:
        return f"needs more than {time_short(min_s, evidence.seconds_left)}"
    improvement = _improvement(evidence, base, expectation.gain, _gain_sd(expectation, base))
    if improvement < _price_per_s(evidence.constraints) * min_s:
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


def _value(candidate: Candidate) -> float:
    """Return the expected improvement per second."""
    return candidate.improvement / candidate.seconds


def _improvement(evidence: EvidenceCollector, base: Candidate, gain: float, gain_sd: float) -> float:
    error = trial_error(base.probe.accuracy, evidence.num_validation)
    return expected_improvement(gain - base.behind, gain_sd, error)


def expected_improvement(gain: float, gain_sd: float, error: float) -> float:
    """Return the expected improvement over the best probe: a loss can be turned down, as far as a trial can tell it.

    Args:
        gain: expected over the best probe.
        gain_sd: prior standard deviation of ``gain``.
        error: standard error of a trial's gain.

    Source: Jones, Schonlau and Welch 1998, applied to the posterior mean after the trial, whose standard deviation is
    ``gain_sd**2 / sqrt(gain_sd**2 + error**2)`` (Raiffa and Schlaifer 1961).
    """
    posterior_sd, normal = max(gain_sd**2 / hypot(gain_sd, error), 1e-6), NormalDist()
    return gain * normal.cdf(gain / posterior_sd) + posterior_sd * normal.pdf(gain / posterior_sd)


def trial_error(probe_accuracy: float, num_validation: int) -> float:
    """Return the standard error of a trial's gain if it disagrees with the probe on as many images as the probe gets wrong.

    Args:
        probe_accuracy: gives the share of these images.
        num_validation: images that a trial is evaluated on.
    """
    count = max(num_validation, 1)
    return sqrt(max(1 - probe_accuracy, 1 / count) / count)


def _gain_sd(expectation: Expectation, base: Candidate) -> float:
    """Return the prior standard deviation of the gain, capped by the probe's error rate."""
    return max(min(expectation.gain_sd, MAX_ERRORS_REMOVED * (1 - base.probe.accuracy) / 2), 1e-6)


def is_requested(constraints: Constraints) -> bool:
    """Return whether the user chose the strategies, so that none is too expensive."""
    return bool(constraints.strategies or constraints.hidden_dims)


def _price_per_s(constraints: Constraints) -> float:
    """Return the accuracy that each second must be expected to gain."""
    return GAIN_PER_BUDGET / constraints.budget_s if constraints.budget_s else GAIN_PER_S


def _too_expensive(gain: float, seconds: float, constraints: Constraints, *, at_least: str = "") -> str:
    hint = "of this budget" if constraints.budget_s else "(raise --budget to try it)"
    return f"expected gain of {100 * gain:+.1f} pp is not worth {at_least}{seconds / 60:.1f} min {hint}"


def _not_tried(base: Candidate, strategy: LoadedStrategy, reason: str) -> CandidateVerdict:
    """Return the verdict on a strategy that was excluded before it was estimated."""
    return CandidateVerdict(
        backbone=base.backbone, strategy=strategy.name, estimate=Estimate(), verdict="not_tried", reason=reason
    )
