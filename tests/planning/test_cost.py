"""Predicted costs and shortened recipes, on numbers whose result is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_tl.contracts import Expectation
from automl_tl.planning.cost import (
    SYNC_MIB_PER_S,
    TrainingCost,
    Workload,
    cheaper_cost,
    cost_in_processes,
    levels_mib,
    memory_mib,
    recipe_variants,
    seconds_of_probe,
    training_cost,
    training_mib,
)
from automl_tl.training.closed_form import solving_s
from automl_tl.training.speed import Speed, TrainingSpeed
from automl_tl.values import Phase, Recipe

SPEED = Speed(load_s=0.002, forward_s=0.01, latency_ms=25)
TRAINING = TrainingSpeed(forward_s=(0.02, 0.01, 0.01), step_s=(0.06, 0.03, 0.03), activations_mib=(4, 2, 1))
WORK = Workload(num_train=200, num_validation=50, num_test=100, num_classes=5)
HEAD = Phase(name="head", epochs=1)
TOP = Phase(name="top", epochs=5, train_blocks=(2, 3, 4))
EXPECTED = Expectation(suits=True, gain=0.1, gain_sd=0.03, why="adapts the top")


def phase(**changes: object) -> Recipe:
    return Recipe(phases=(Phase.model_validate({"name": "p", "epochs": 10, "train_blocks": (2,)} | changes),))


def test_training_cost_ranks_probe_tail_and_full_training() -> None:
    tail = training_cost(phase(cached_views=4), SPEED, TRAINING, WORK, feature_dim=12, publishing_s=5).min_s
    fresh = training_cost(phase(), SPEED, TRAINING, WORK, feature_dim=12, publishing_s=5).min_s
    whole = training_cost(phase(train_blocks=(0, 1, 2)), SPEED, TRAINING, WORK, feature_dim=12, publishing_s=5).min_s

    assert seconds_of_probe(SPEED, WORK, feature_dim=12, num_cached=0, publishing_s=5) < tail < fresh < whole
    assert seconds_of_probe(SPEED, WORK, feature_dim=12, num_cached=250, publishing_s=5) < seconds_of_probe(
        SPEED, WORK, feature_dim=12, num_cached=0, publishing_s=5
    )


@given(epochs=st.integers(1, 50))
def test_training_cost_grows_linearly_with_epochs(epochs: int) -> None:
    once, more = (
        training_cost(phase(epochs=n), SPEED, TRAINING, WORK, feature_dim=12, publishing_s=5).trial_s for n in (1, 1 + epochs)
    )
    per_image_s = 0.02 + 0.01 + 0.03 + 0.003

    assert more - once == pytest.approx(epochs * (200 * per_image_s + 50 * 0.01))


def test_cost_in_processes_shares_the_steps_and_adds_start_and_gradients() -> None:
    recipe = phase(train_blocks=(0, 1, 2))
    one = training_cost(recipe, SPEED, TRAINING, WORK, feature_dim=12, publishing_s=5)

    four = cost_in_processes(one, recipe, WORK, processes=4, size_mib=80, startup_s=5)

    steps_s, sync_s = 10 * 200 * (0.12 + 0.003), 10 * 200 / 32 * 80 / SYNC_MIB_PER_S
    assert one.steps_s == pytest.approx(steps_s)
    assert four.trial_s == pytest.approx(one.trial_s - 3 / 4 * steps_s + sync_s + 5)
    assert four.refit_s == pytest.approx(one.refit_s - 250 / 200 * (3 / 4 * steps_s - sync_s) + 5)
    assert training_cost(phase(batch_norm="training"), SPEED, TRAINING, WORK, feature_dim=12, publishing_s=5).steps_s == 0


@pytest.mark.parametrize(("several_s", "processes"), [(80.0, 4), (95.0, 1)])
def test_cheaper_cost_takes_several_processes_where_they_save_a_tenth(several_s: float, processes: int) -> None:
    one, several = TrainingCost(100.0, 0.0, 0.0), TrainingCost(several_s, 0.0, 0.0, processes=4)

    chosen = cheaper_cost(one, several)

    assert chosen.processes == processes
    assert f"{several_s:.0f} s in 4 processes, one per GPU, and 100 s in one" in chosen.processes_reason


def test_training_memory_grows_with_the_trained_blocks() -> None:
    tail, whole = phase(), phase(train_blocks=(0, 1, 2))

    assert 0 < training_mib(tail, TRAINING, 5_000_000) < training_mib(whole, TRAINING, 5_000_000)


def test_levels_memory_matches_the_measured_peak_of_sign_digits() -> None:
    """400 images, EfficientNet-Lite0 to 2: 1,766 MiB, of which Lite2's weights are twice 18."""
    predicted = memory_mib(4_700_000) + levels_mib(3, 400, 3 * 5504)  # the ensemble of all is the widest

    assert predicted == pytest.approx(1766, rel=0.1)
    assert levels_mib(0, 400, 5504) == 0


def test_levels_memory_grows_with_images_up_to_the_features_alone() -> None:
    few, many, more = (levels_mib(1, count, 5504) for count in (2_048, 20_000, 40_000))

    assert few < many
    assert more - many == pytest.approx(2 * 20_000 * 5504 * 4 / 2**20)


def test_training_cost_of_the_refit_reuses_cached_activations() -> None:
    def refit_s(recipe: Recipe) -> float:
        return training_cost(recipe, SPEED, TRAINING, WORK, feature_dim=12, publishing_s=5).refit_s

    head = Phase(name="head", epochs=1, augmentation="none", train_blocks=(1, 2))
    views, later = phase(cached_views=4), Recipe(phases=(head, *phase(cached_views=4).phases))
    front_s, head_s, step_s = 0.01 * 3 / 4, solving_s(250, 12, 5), 10 * 250 * 0.03

    assert refit_s(views) == pytest.approx(head_s + 50 * (front_s + 3 * (0.003 + front_s)) + step_s)
    of_head = 50 * 0.005 + 250 * 0.06
    assert refit_s(later) == pytest.approx(head_s + of_head + 250 * (front_s + 3 * (0.003 + front_s)) + step_s)


def list_variants(expectation: Expectation = EXPECTED) -> list[tuple[Recipe, Expectation]]:
    return list(recipe_variants(Recipe(phases=(HEAD, TOP)), expectation))


def test_recipe_variants_start_with_the_whole_recipe_and_get_cheaper() -> None:
    variants = list_variants()

    assert variants[0] == (Recipe(phases=(HEAD, TOP)), EXPECTED)
    assert [tuple(phase.epochs for phase in recipe.phases) for recipe, _ in variants] == [(1, 5), (1, 4), (1, 3), (1, 2)]
    assert [expected.gain for _, expected in variants] == pytest.approx([0.1, 0.09, 0.07, 0.05])


def test_recipe_variants_say_what_was_shortened() -> None:
    assert [expected.why for _, expected in list_variants()[1:]] == [
        "adapts the top; shortened to fit the budget: two thirds of the epochs",
        "adapts the top; shortened to fit the budget: half of the epochs",
        "adapts the top; shortened to fit the budget: a third of the epochs",
    ]


def test_recipe_variants_do_not_shrink_an_expected_loss() -> None:
    assert {expected.gain for _, expected in list_variants(EXPECTED.model_copy(update={"gain": -0.1}))} == {-0.1}
