"""Wishes that reach into a recipe: another head, other weights, options of a strategy."""

from __future__ import annotations

from typing import Final

from automl_tl.errors import ImpossibleWishError
from automl_tl.values import Phase, Recipe, Wishes

__all__ = ["adapted", "check_wishes"]

# An MLP can't be solved; on cached features an epoch costs next to nothing, so that many are affordable.
HEAD_PHASE: Final = Phase(name="head", epochs=60, head_lr=1e-3, augmentation="none")


def check_wishes(wishes: Wishes) -> None:
    """Refuse wishes that don't say what they are about.

    Raises:
        ImpossibleWishError: options without one strategy, or a weights file without one backbone.
    """
    if wishes.options and len(wishes.strategies) != 1:
        raise ImpossibleWishError(f"the options {wishes.options}", "Options belong to one strategy: add --strategy NAME.")
    if wishes.weights not in (None, "none") and len(wishes.backbones) != 1:
        raise ImpossibleWishError(
            f"the weights {wishes.weights}", "A file of weights belongs to one backbone: add --backbone NAME."
        )


def adapted(recipe: Recipe, wishes: Wishes) -> Recipe:
    """``recipe`` with the head and the weights that were asked for."""
    if wishes.weights == "none":
        recipe = recipe.model_copy(update={"pretrained": False})
    if wishes.hidden_dims is None or wishes.hidden_dims == recipe.head.hidden_dims:
        return recipe
    start = "random" if wishes.hidden_dims else "zero"  # behind hidden layers a zero layer leaves them nothing to learn from
    head = recipe.head.model_copy(update={"hidden_dims": wishes.hidden_dims, "solver": None, "start": start})
    return recipe.model_copy(update={"head": head, "phases": recipe.phases or (HEAD_PHASE,)})
