"""Comparisons, scores and costs, on numbers whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_tl.planning.cost import Workload, memory_mib, seconds_of_probe, seconds_of_training
from automl_tl.planning.similarity import h_score, log_me, neighbor_agreement, source_similarity
from automl_tl.planning.verdicts import compare, shrunk
from automl_tl.training.budget import solving_s
from automl_tl.training.speed import Speed, TrainingSpeed
from automl_tl.values import Phase, Recipe

SPEED = Speed(load_s=0.002, forward_s=0.01, latency_ms=25)
TRAINING = TrainingSpeed(forward_s=(0.02, 0.01, 0.01), step_s=(0.06, 0.03, 0.03), activations_mib=(4, 2, 1))
WORK = Workload(num_train=200, num_validation=50, num_test=100, num_classes=5)


def answers(right: np.ndarray, labels: np.ndarray, confidence: float = 0.9) -> np.ndarray:
    """Probabilities of two classes, right where asked for."""
    said = np.where(right, labels, 1 - labels)
    return np.where(np.arange(2)[None] == said[:, None], confidence, 1 - confidence)


def test_a_large_difference_is_decided_and_equal_answers_are_tied() -> None:
    labels = np.arange(400) % 2
    good, bad = answers(labels >= 0, labels), answers(np.arange(400) % 4 > 0, labels)

    assert compare(good, bad, labels).word == "decided"
    assert compare(good, bad, labels).difference == pytest.approx(0.25)
    assert compare(good, good, labels).word == "tied"


def test_few_images_decide_nothing_and_say_how_many_would() -> None:
    labels = np.arange(20) % 2
    found = compare(answers(np.arange(20) != 3, labels), answers(np.arange(20) != 5, labels), labels)

    assert found.word == "not enough data"
    assert found.num_needed > 1000


def test_the_number_of_images_needed_is_that_of_the_notes() -> None:
    """Arms that disagree on 10% of images: two points need 1958 by McNemar's formula, a point four times as many."""
    labels = np.zeros(1000, dtype=np.int64)
    first, second = np.ones(1000, dtype=bool), np.ones(1000, dtype=bool)
    first[:50], second[50:100] = False, False

    assert compare(answers(first, labels), answers(second, labels), labels).num_needed == pytest.approx(4 * 1958, rel=0.01)


@given(st.floats(-1, 1), st.floats(0.001, 1), st.floats(-1, 1), st.floats(0.001, 1))
def test_a_shrunk_difference_lies_between_measurement_and_prior(a: float, a_sd: float, b: float, b_sd: float) -> None:
    mean, sd = shrunk(a, a_sd, b, b_sd)

    assert min(a, b) - 1e-9 <= mean <= max(a, b) + 1e-9
    assert sd <= min(a_sd, b_sd) + 1e-9


def clusters(distance: float, per_class: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), per_class)
    return rng.normal(size=(len(labels), 16)) + distance * np.eye(16)[labels], labels


@pytest.mark.parametrize("score", [neighbor_agreement, h_score, log_me], ids=lambda each: each.__name__)
def test_scores_rise_with_the_distance_of_the_classes(score: object) -> None:
    assert callable(score)
    values = [score(*clusters(distance)) for distance in (0.0, 2.0, 8.0)]

    assert values == sorted(values)
    assert values[0] < values[-1]


def test_log_me_is_the_evidence_of_bayesian_ridge() -> None:
    """Held against scikit-learn's own evidence maximization, on both columns of two classes."""
    from sklearn.linear_model import BayesianRidge

    features, labels = clusters(1.0)
    is_first = (labels == 0).astype(np.int64)
    model = BayesianRidge(fit_intercept=False, compute_score=True, alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, max_iter=500)
    evidences = [model.fit(features, column).scores_[-1] / len(column) for column in (is_first, 1 - is_first)]

    assert log_me(features, is_first) == pytest.approx(np.mean(evidences), abs=0.02)


def test_similarity_is_confidence() -> None:
    sure, unsure = np.eye(5)[[0, 1]] * 20, np.zeros((4, 5))

    assert source_similarity(sure) == 1.0
    assert source_similarity(unsure) == pytest.approx(0.2 / 0.7)


def phase(**changes: object) -> Recipe:
    return Recipe(phases=(Phase.model_validate({"name": "p", "epochs": 10, "train_blocks": (2,)} | changes),))


def test_costs_rank_as_they_should() -> None:
    tail = seconds_of_training(phase(cached_views=4), SPEED, TRAINING, WORK, feature_dim=12, publishing_s=5).least_s
    fresh = seconds_of_training(phase(), SPEED, TRAINING, WORK, feature_dim=12, publishing_s=5).least_s
    whole = seconds_of_training(phase(train_blocks=(0, 1, 2)), SPEED, TRAINING, WORK, feature_dim=12, publishing_s=5).least_s

    assert seconds_of_probe(SPEED, WORK, feature_dim=12, num_cached=0, publishing_s=5) < tail < fresh < whole
    assert seconds_of_probe(SPEED, WORK, feature_dim=12, num_cached=250, publishing_s=5) < seconds_of_probe(
        SPEED, WORK, feature_dim=12, num_cached=0, publishing_s=5
    )


@given(epochs=st.integers(1, 50))
def test_epochs_cost_what_they_cost(epochs: int) -> None:
    once, more = (
        seconds_of_training(phase(epochs=n), SPEED, TRAINING, WORK, feature_dim=12, publishing_s=5).trial_s
        for n in (1, 1 + epochs)
    )
    per_image_s = 0.02 + 0.01 + 0.03 + 0.003

    assert more - once == pytest.approx(epochs * (200 * per_image_s + 50 * 0.01))


def test_memory_grows_with_what_learns() -> None:
    probe, tail, whole = Recipe(), phase(), phase(train_blocks=(0, 1, 2))

    assert memory_mib(probe, None, 5_000_000) < memory_mib(tail, TRAINING, 5_000_000) < memory_mib(whole, TRAINING, 5_000_000)


def test_what_the_first_time_has_computed_training_again_does_not_pay_for() -> None:
    def refit_s(recipe: Recipe) -> float:
        return seconds_of_training(recipe, SPEED, TRAINING, WORK, feature_dim=12, publishing_s=5).refit_s

    head = Phase(name="head", epochs=1, augmentation="none", train_blocks=(1, 2))
    views, later = phase(cached_views=4), Recipe(phases=(head, *phase(cached_views=4).phases))
    front_s, head_s, step_s = 0.01 * 3 / 4, solving_s(250, 12, 5), 10 * 250 * 0.03

    assert refit_s(views) == pytest.approx(head_s + 50 * (front_s + 3 * (0.003 + front_s)) + step_s)
    of_head = 50 * 0.005 + 250 * 0.06
    assert refit_s(later) == pytest.approx(head_s + of_head + 250 * (front_s + 3 * (0.003 + front_s)) + step_s)
