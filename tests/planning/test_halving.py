"""Successive halving on fake predictions: which candidates continue, and which are the better ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from automl_tl.errors import TrainingError
from automl_tl.planning.candidates import Candidate
from automl_tl.planning.cost import AVERAGE_MIB, TrainingCost
from automl_tl.planning.halving import Champion, successive_halving
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.training import Trial, Workspace
from automl_tl.values import Metric, Phase, Recipe
from tests.planning.fake_candidates import PROBE, fake_candidate

EPOCHS = 6
NUM_WRONG_OF_PROBE = 40
LABELS = np.arange(100) % 2
METRICS: tuple[Metric, ...] = ("accuracy", "log_loss")
BASE = fake_candidate(0.6, strategy="", seconds=1)
RECIPE = Recipe(phases=(Phase(name="all", epochs=EPOCHS, train_blocks=(0,)),))
Predictions = NDArray[np.float64]
Strategies = Mapping[str, tuple[float, Predictions | None, Predictions]]
Halve = Callable[..., tuple[dict[str, Candidate], list[tuple[str, int]]]]


def predictions(num_wrong: int, first: int = 0) -> Predictions:
    """Return confident probabilities ``(100, 2)``, of which ``num_wrong`` are wrong, from ``first`` on."""
    predicted = LABELS.copy()
    predicted[first : first + num_wrong] = 1 - predicted[first : first + num_wrong]
    return np.where(np.arange(2)[None] == predicted[:, None], 0.9, 0.1)


@pytest.fixture
def halve(tmp_path: Path) -> Halve:
    """Run strategies with (expected gain, predictions after a third, predictions in full); an absent prediction fails.

    Returns the candidates by strategy, also averaged ones, and what was trained for how many epochs.
    """

    def halve(
        strategies: Strategies,
        budget_s: float | None = None,
        champion: Champion | None = None,
        metric: Metric = "accuracy",
        partner: Champion | None = None,
    ) -> tuple[dict[str, Candidate], list[tuple[str, int]]]:
        trained: list[tuple[str, int]] = []

        def run_trial(candidate: Candidate, epochs: int) -> Trial:
            trained.append((candidate.strategy, epochs))
            _, early, late = strategies[candidate.strategy]
            if early is None:
                raise TrainingError("the loss became nan")
            current = early if epochs < EPOCHS else late
            is_worse = bool((current.argmax(axis=1) != LABELS).sum() > NUM_WRONG_OF_PROBE)
            return Trial(LABELS, current, predictions(NUM_WRONG_OF_PROBE), 1.0, is_worse)

        candidates = [
            replace(
                fake_candidate(BASE.accuracy + gain, strategy=name, seconds=20),
                probe=replace(PROBE, metric=metric),
                recipe=RECIPE,
                gain=gain,
                gain_sd=0.03,
                cost=TrainingCost(10, 5, 5),
            )
            for name, (gain, _, _) in strategies.items()
        ]
        workspace = Workspace(tmp_path, tmp_path, Deadline(budget_s, clock=lambda: 0.0), QUIET)
        results = successive_halving(candidates, BASE, workspace, run_trial, champion, partner)
        averaged = {f"{each.strategy}, averaged": each for each in results if each.averaged_with}
        alone = {each.strategy: each for each in results if not each.averaged_with}
        assert set(alone) == set(strategies)
        return alone | averaged, trained

    return halve


def test_halving_continues_with_the_first_if_images_do_not_decide(halve: Halve) -> None:
    candidates, trained = halve(
        {"first": (0.1, predictions(22), predictions(20)), "second": (0.1, predictions(20), predictions(18))}
    )

    assert trained == [("first", 2), ("second", 2), ("first", EPOCHS)]
    assert candidates["first"].given_up is None
    assert candidates["second"].given_up is not None
    assert "undecided" in candidates["second"].given_up
    assert "against first after a third of the epochs" in candidates["second"].given_up


def test_halving_continues_with_a_significantly_better_candidate(halve: Halve) -> None:
    candidates, trained = halve(
        {"first": (0.1, predictions(40), predictions(30)), "second": (0.1, predictions(10), predictions(5))}
    )

    assert ("second", EPOCHS) in trained
    assert candidates["second"].accuracy > candidates["first"].accuracy


def test_halving_continues_with_a_candidate_that_promises_more_unless_it_is_worse(halve: Halve) -> None:
    candidates, _ = halve(
        {"first": (0.1, predictions(20), predictions(20)), "second": (0.15, predictions(20), predictions(21))}
    )
    assert candidates["second"].accuracy == pytest.approx(candidates["first"].accuracy + 0.05)

    candidates, _ = halve({"first": (0.1, predictions(5), predictions(5)), "second": (0.15, predictions(40), predictions(5))})
    assert candidates["second"].given_up is not None


def test_halving_does_not_rank_candidates_by_one_more_image(halve: Halve) -> None:
    candidates, _ = halve({"first": (0.1, predictions(40), predictions(20)), "second": (0.1, predictions(10), predictions(19))})

    assert candidates["second"].accuracy == pytest.approx(candidates["first"].accuracy)


def test_halving_compares_with_the_next_if_the_first_fails(halve: Halve) -> None:
    candidates, trained = halve({"broken": (0.1, None, predictions(0)), "sound": (0.05, predictions(30), predictions(20))})

    assert candidates["broken"].given_up == "the loss became nan"
    assert trained[-1] == ("sound", EPOCHS)
    assert candidates["sound"].given_up is None


def test_halving_trains_the_next_if_the_probe_beats_the_first(halve: Halve) -> None:
    candidates, trained = halve(
        {"first": (0.1, predictions(30), predictions(45)), "second": (0.1, predictions(30), predictions(20))}
    )

    assert trained[-1] == ("second", EPOCHS)
    assert candidates["first"].given_up is not None
    assert candidates["second"].given_up is None


def test_halving_continues_with_a_second_candidate_only_if_time_allows(halve: Halve) -> None:
    candidates, trained = halve(
        {"first": (0.1, predictions(40), predictions(30)), "second": (0.1, predictions(10), predictions(5))}, budget_s=12
    )

    assert ("second", EPOCHS) not in trained
    assert candidates["second"].given_up == "no time left after the first strategy"


def champion(num_wrong: int, positions: NDArray[np.int64]) -> Champion:
    """Return a candidate without training that is 10 pp better than the probe, on some of the validation images."""
    candidate = fake_candidate(BASE.accuracy + 0.1, strategy="linear_probe", seconds=1)
    return Champion(candidate, positions, predictions(num_wrong)[positions])


def test_halving_gives_up_what_has_a_higher_log_loss_than_the_best_probe(halve: Halve) -> None:
    strategies = {"tail": (0.2, predictions(38), predictions(38))}

    results, _ = halve(strategies, champion=champion(30, np.arange(100)))

    assert "linear_probe" in (results["tail"].given_up or "")
    assert "lower log loss on 100 validation images" in (results["tail"].given_up or "")


def test_halving_measures_accuracy_from_the_best_probe(halve: Halve) -> None:
    strategies = {"tail": (0.1, predictions(10), predictions(10))}

    results, _ = halve(strategies, champion=champion(30, np.arange(100)))

    tail = results["tail"]
    assert tail.given_up is None
    assert BASE.accuracy + 0.1 < tail.accuracy < BASE.accuracy + 0.3  # between the prior and 20 pp measured


@pytest.mark.parametrize(("first", "is_averaged"), [(30, True), (0, False)], ids=["other errors", "the same errors"])
def test_halving_averages_a_trained_candidate_that_makes_other_errors(first: int, is_averaged: bool, halve: Halve) -> None:
    partner = champion(30, np.arange(100))
    partner = replace(partner, candidate=replace(partner.candidate, latency_ms=7, size_mib=5))

    results, _ = halve({"tail": (0.1, predictions(25, first), predictions(25, first))}, champion=partner, partner=partner)

    assert ("tail, averaged" in results) == is_averaged
    if is_averaged:
        average, tail = results["tail, averaged"], results["tail"]
        assert average.backbone == "a/backbone+a/backbone"
        assert average.accuracy > max(tail.accuracy, partner.candidate.accuracy)
        assert (average.latency_ms, average.size_mib) == (tail.latency_ms + 7, tail.size_mib + 5)
        assert average.memory_mib == max(tail.memory_mib, partner.candidate.memory_mib) + AVERAGE_MIB
        assert "averaged with linear_probe on a/backbone: log loss" in average.reason


def test_halving_averages_what_has_the_higher_log_loss_alone(halve: Halve) -> None:
    partner = champion(20, np.arange(100))

    results, _ = halve({"tail": (0.1, predictions(25, 30), predictions(25, 30))}, champion=partner, partner=partner)

    assert "lower log loss" in (results["tail"].given_up or "")
    assert results["tail, averaged"].given_up is None
    assert results["tail, averaged"].accuracy > partner.candidate.accuracy


def test_halving_without_shared_validation_images_compares_with_the_probe(halve: Halve) -> None:
    strategies = {"tail": (0.05, predictions(30), predictions(30))}

    results, _ = halve(strategies, champion=champion(30, np.array([], dtype=np.int64)))
    alone, _ = halve(strategies)

    assert results["tail"].accuracy == alone["tail"].accuracy


def test_halving_compares_by_the_metric_that_is_asked_for(halve: Halve) -> None:
    """Two models are right equally often, but the second is less sure of its errors."""
    sure, unsure = predictions(30), np.where(predictions(30) > 0.5, 0.7, 0.3)
    strategies, second = {"first": (0.1, sure, sure), "second": (0.1, unsure, unsure)}, {"second": (0.1, unsure, unsure)}
    rival = champion(30, np.arange(100))

    accuracies = {}
    for metric in METRICS:
        compared, trained = halve(strategies, metric=metric)
        against_rival, _ = halve(second, champion=rival, metric=metric)
        assert (("second", EPOCHS) in trained) == (metric == "log_loss")
        accuracies[metric] = against_rival["second"].accuracy
        if metric == "log_loss":
            assert compared["second"].accuracy > compared["first"].accuracy

    assert accuracies["log_loss"] > accuracies["accuracy"]
