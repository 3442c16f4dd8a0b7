"""Constraints that reach into a recipe: another head, other weights, options of a strategy."""

from __future__ import annotations

from typing import Final

from automl_tl.errors import UnsatisfiableConstraintsError
from automl_tl.values import Constraints, Phase, Recipe

__all__ = ["adapted", "check_constraints"]

# An MLP can't be solved; on cached features an epoch costs next to nothing, so that many are affordable.
HEAD_PHASE: Final = Phase(name="head", epochs=60, head_lr=1e-3, augmentation="none")


def check_constraints(constraints: Constraints) -> None:
    """Refuse constraints that don't say what they are about.

    Raises:
        UnsatisfiableConstraintsError: options without one strategy, or a weights file without one backbone.
    """
    if constraints.options and len(constraints.strategies) != 1:
        raise UnsatisfiableConstraintsError(
            f"the options {constraints.options}", "Options belong to one strategy; add --strategy NAME."
        )
    if constraints.weights not in (None, "none") and len(constraints.backbones) != 1:
        raise UnsatisfiableConstraintsError(
            f"the weights {constraints.weights}", "A weights file belongs to one backbone; add --backbone NAME."
        )


def adapted(recipe: Recipe, constraints: Constraints) -> Recipe:
    """``recipe`` with the head and the weights that were asked for."""
    if constraints.weights == "none":
        recipe = recipe.model_copy(update={"pretrained": False})
    if constraints.hidden_dims is None or constraints.hidden_dims == recipe.head.hidden_dims:
        return recipe
    start = (
        "random" if constraints.hidden_dims else "zero"
    )  # behind hidden layers a zero layer leaves them nothing to learn from
    head = recipe.head.model_copy(update={"hidden_dims": constraints.hidden_dims, "solver": None, "start": start})
    return recipe.model_copy(update={"head": head, "phases": recipe.phases or (HEAD_PHASE,)})
