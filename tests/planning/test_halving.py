"""Who goes on in a race and who wins it, on answers that are made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from automl_tl.errors import TrainingError
from automl_tl.planning.cost import TrainingSeconds
from automl_tl.planning.decision import Arm
from automl_tl.planning.halving import Runner, successive_halving
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.training import Trial, Workspace
from automl_tl.values import Phase, Recipe

EPOCHS = 6
NUM_WRONG_OF_PROBE = 40
LABELS = np.arange(100) % 2
Run = Callable[..., tuple[dict[str, Arm], list[tuple[str, int]]]]
PROBE = Arm("tiny", "solved", 0.6, 0.03, "", 1.0, 1.0, 1.0, 1.0, "")


def answers(num_wrong: int) -> NDArray[np.float64]:
    """Probabilities for the images, sure and right but for so many."""
    said = LABELS.copy()
    said[:num_wrong] = 1 - said[:num_wrong]
    return np.where(np.arange(2)[None] == said[:, None], 0.9, 0.1)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A race of strategies with (expected gain, answers after a third, answers in full): its arms, and what was trained."""

    def run(
        field: Mapping[str, tuple[float, NDArray[np.float64] | None, NDArray[np.float64]]], budget_s: float | None = None
    ) -> tuple[dict[str, Arm], list[tuple[str, int]]]:
        trained: list[tuple[str, int]] = []

        def runner(name: str, gain: float, early: NDArray[np.float64] | None, late: NDArray[np.float64]) -> Runner:
            def carry_out(*, epochs: int) -> Trial:
                trained.append((name, epochs))
                if early is None:
                    raise TrainingError("the loss became nan")
                given = early if epochs < EPOCHS else late
                is_worse = bool((given.argmax(axis=1) != LABELS).sum() > NUM_WRONG_OF_PROBE)
                return Trial(LABELS, given, answers(NUM_WRONG_OF_PROBE), 1.0, is_worse)

            recipe = Recipe(phases=(Phase(name="all", epochs=EPOCHS, train_blocks=(0,)),))
            arm = Arm("tiny", name, PROBE.accuracy + gain, 0.04, "", 20.0, 1.0, 1.0, 1.0, "as told")
            return Runner(arm, recipe, gain, 0.03, TrainingSeconds(10, 5, 5), carry_out)

        workspace = Workspace(tmp_path, tmp_path, Deadline(budget_s, clock=lambda: 0.0), QUIET)
        arms = successive_halving([runner(name, *told) for name, told in field.items()], PROBE, workspace)
        return {arm.strategy: arm for arm in arms}, trained

    return run


def test_what_the_images_do_not_decide_goes_to_the_first(run: Run) -> None:
    arms, trained = run({"quick": (0.1, answers(22), answers(20)), "expensive": (0.1, answers(20), answers(18))})

    assert trained == [("quick", 2), ("expensive", 2), ("quick", EPOCHS)]
    assert arms["quick"].given_up is None
    assert arms["expensive"].given_up is not None
    assert "undecided" in arms["expensive"].given_up
    assert "against quick after a third of the epochs" in arms["expensive"].given_up


def test_one_that_is_decided_better_goes_on_and_wins(run: Run) -> None:
    arms, trained = run({"quick": (0.1, answers(40), answers(30)), "expensive": (0.1, answers(10), answers(5))})

    assert ("expensive", EPOCHS) in trained
    assert arms["expensive"].accuracy > arms["quick"].accuracy


def test_one_that_promises_more_goes_on_unless_it_is_decided_worse(run: Run) -> None:
    arms, _ = run({"quick": (0.1, answers(20), answers(20)), "expensive": (0.15, answers(20), answers(21))})
    assert arms["expensive"].accuracy == pytest.approx(arms["quick"].accuracy + 0.05)

    arms, _ = run({"quick": (0.1, answers(5), answers(5)), "expensive": (0.15, answers(40), answers(5))})
    assert arms["expensive"].given_up is not None


def test_one_more_image_does_not_put_an_equal_strategy_before_the_first(run: Run) -> None:
    arms, _ = run({"quick": (0.1, answers(40), answers(20)), "expensive": (0.1, answers(10), answers(19))})

    assert arms["expensive"].accuracy == pytest.approx(arms["quick"].accuracy)


def test_where_the_first_fails_the_next_one_is_the_first(run: Run) -> None:
    arms, trained = run({"broken": (0.1, None, answers(0)), "sound": (0.05, answers(30), answers(20))})

    assert arms["broken"].given_up == "the loss became nan"
    assert trained[-1] == ("sound", EPOCHS)
    assert arms["sound"].given_up is None


def test_where_the_probe_beats_the_first_the_next_one_has_its_turn(run: Run) -> None:
    arms, trained = run({"quick": (0.1, answers(30), answers(45)), "expensive": (0.1, answers(30), answers(20))})

    assert trained[-1] == ("expensive", EPOCHS)
    assert arms["quick"].given_up is not None
    assert arms["expensive"].given_up is None


def test_a_second_one_needs_the_time_for_it(run: Run) -> None:
    arms, trained = run({"quick": (0.1, answers(40), answers(30)), "expensive": (0.1, answers(10), answers(5))}, budget_s=12)

    assert ("expensive", EPOCHS) not in trained
    assert arms["expensive"].given_up == "no time left after the first strategy"
