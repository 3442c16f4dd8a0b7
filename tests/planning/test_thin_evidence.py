"""Where a rung has nothing to stand on, it is left out, and no wrong reason is told."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from automl_tl.contracts import Expectation, Recipe, Situation
from automl_tl.values import Constraints
from automl_tl.workflows.dataset import Dataset
from tests.fakes import TinyBackbone
from tests.planning.test_planner import (  # noqa: F401 - found is a fixture
    Larger,
    Solved,
    Trained,
    catalog_of,
    found,
    planned,
)


class Scratch(Trained):
    """Starts from random weights."""

    name: ClassVar[str] = "scratch"
    expectation: ClassVar[Expectation] = Expectation(suits=True, gain=-0.1, gain_sd=0.1, why="from nothing")

    def recipe(self, situation: Situation) -> Recipe:
        """The same without weights."""
        return super().recipe(situation).model_copy(update={"pretrained": False})


def test_without_validation_images_nothing_is_trained_to_be_judged(
    found: Dataset,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found.images["train"] += found.images["validation"]
    found.images["validation"] = found.images["validation"].at([])
    tried: list[object] = []
    monkeypatch.setattr("automl_tl.planning.runners.trial", lambda *of, **_: tried.append(of))
    catalog, constraints = catalog_of([TinyBackbone()], [Solved(), Trained()]), Constraints(strategies=("solved", "somebodys"))

    plan = planned(found, tmp_path, catalog, constraints, races=True)

    assert not tried
    assert not any("no time" in each.reason for each in plan.candidates)


def test_a_head_on_random_weights_is_trained_with_the_encoder(found: Dataset, tmp_path: Path) -> None:  # noqa: F811
    catalog = catalog_of([TinyBackbone()], [Solved(), Scratch()])

    plan = planned(found, tmp_path, catalog, Constraints(backbones=("tiny/three_blocks",), weights="none", hidden_dims=(8,)))

    assert plan.strategy == "scratch"


def test_a_backbone_that_hides_its_cost_has_to_keep_the_budget_too(found: Dataset, tmp_path: Path) -> None:  # noqa: F811
    secret = Larger(name="tiny/secret", num_macs=None, num_parameters=10**6)
    catalog = catalog_of([TinyBackbone(), secret], [Solved()])

    plan = planned(found, tmp_path, catalog, Constraints(budget_s=0.001))

    reasons = {each.backbone: each.reason for each in plan.candidates}
    assert "s left" in reasons["tiny/secret"] or "the limit is" in reasons["tiny/secret"]
