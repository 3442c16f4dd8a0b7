"""The shortlist, and constraints that reach into a recipe."""

from __future__ import annotations

import pytest

from automl_tl.contracts import Head, Phase, Recipe
from automl_tl.planning.limits import adapt_recipe, reject_card, shortlist
from automl_tl.testing import ToyBackbone
from automl_tl.values import Constraints
from tests.planning.fake_plugins import Renamed, catalog_of


def test_shortlist_keeps_one_of_two_names_of_the_same_network() -> None:
    copy = Renamed(name="other/three_blocks", same_network_as=("toy/three_blocks",))

    cards, rejected = shortlist(catalog_of([ToyBackbone(), copy], []), Constraints())

    assert len(cards) == len(rejected) == 1


@pytest.mark.parametrize(
    ("license", "is_rejected"),
    [("Apache-2.0", False), ("Apache-2.0 AND MIT", False), ("MIT AND CC-BY-NC-4.0", True), (None, True)],
)
def test_reject_card_needs_every_license_to_be_permissive(license: str | None, is_rejected: bool) -> None:
    reason = reject_card(Renamed(license=license).card, Constraints(license="permissive"))

    assert (reason is not None) == is_rejected


def test_adapt_recipe_applies_weights_and_head() -> None:
    closed_form = Recipe(head=Head(solver="logistic"))
    trained = Recipe(phases=(Phase(name="all", epochs=2, train_blocks=(0,)),))

    assert adapt_recipe(closed_form, Constraints()) == closed_form
    assert adapt_recipe(trained, Constraints(weights="none")).pretrained is False
    assert adapt_recipe(closed_form, Constraints(hidden_dims=(8,))).head.solver is None
    assert len(adapt_recipe(closed_form, Constraints(hidden_dims=(8,))).phases) == 1
    assert adapt_recipe(trained, Constraints(hidden_dims=(8,))).phases == trained.phases
