"""Cheaper variants of a recipe for tight budgets, with the share of the gain each is assumed to retain.

The refit on training and validation images is dropped before any of this (`cost.TrainingSeconds`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final

from automl_tl.contracts import Expectation
from automl_tl.values import Phase, Recipe

__all__ = ["recipe_variants"]


@dataclass(frozen=True)
class _Shortening:
    """A way to make a recipe cheaper; ``keeps`` is a share of the expected gain."""

    cut: Callable[[Phase], Phase]
    keeps: float
    words: str


def _half_the_epochs(phase: Phase) -> Phase:
    return phase.model_copy(update={"epochs": ceil(phase.epochs / 2)})


def _upper_blocks(phase: Phase) -> Phase:
    """Half of the blocks that learn, those nearest the head; of an odd number the larger half."""
    blocks, factors = phase.train_blocks, phase.block_factors
    kept = sorted(range(len(blocks)), key=lambda at: blocks[at])[len(blocks) // 2 :]
    return phase.model_copy(
        update={
            "train_blocks": tuple(blocks[at] for at in kept),
            "block_factors": None if factors is None else tuple(factors[at] for at in kept),
        }
    )


# The least loss first. Of the gain of the tail on EfficientNet-Lite0 half of the epochs kept 0.85 on four sets, half of the
# blocks 0.55 on five, both 0.5, and each of them nothing on one set (decisions 35, 36). Counted on is a little less.
SHORTENINGS: Final = (
    _Shortening(_half_the_epochs, 0.7, "half of the epochs"),
    _Shortening(_upper_blocks, 0.5, "upper half of the blocks"),
    _Shortening(lambda phase: _half_the_epochs(_upper_blocks(phase)), 0.45, "upper half of the blocks, half of the epochs"),
)


def recipe_variants(recipe: Recipe, expectation: Expectation) -> Iterator[tuple[Recipe, Expectation]]:
    """Yield ``recipe`` as it is, then cheaper variants, each with its expectation."""
    yield recipe, expectation
    for shortening in SHORTENINGS:
        cheaper = recipe.model_copy(update={"phases": tuple(map(shortening.cut, recipe.phases))})
        update = {
            "gain": min(expectation.gain, shortening.keeps * expectation.gain),
            "why": f"{expectation.why}; shortened to fit the budget: {shortening.words}",
        }
        yield cheaper, expectation.model_copy(update=update)
