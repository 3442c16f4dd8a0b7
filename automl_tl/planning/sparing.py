"""What is left out of a recipe where there is no time for all of it, and what of its gain that is counted on to keep.

Training again on the validation images is spared before any of this (`cost.TrainingSeconds`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final

from automl_tl.contracts import Expectation
from automl_tl.values import Phase, Recipe

__all__ = ["versions_of"]


@dataclass(frozen=True)
class _Sparing:
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
SPARINGS: Final = (
    _Sparing(_half_the_epochs, 0.7, "in half of its epochs"),
    _Sparing(_upper_blocks, 0.5, "with the upper half of its blocks"),
    _Sparing(
        lambda phase: _half_the_epochs(_upper_blocks(phase)), 0.45, "with the upper half of its blocks in half of its epochs"
    ),
)


def versions_of(recipe: Recipe, expectation: Expectation) -> Iterator[tuple[Recipe, Expectation]]:
    """``recipe`` as it is, then cheaper and cheaper, each with what is expected of it."""
    yield recipe, expectation
    for sparing in SPARINGS:
        cheaper = recipe.model_copy(update={"phases": tuple(map(sparing.cut, recipe.phases))})
        told = {
            "gain": min(expectation.gain, sparing.keeps * expectation.gain),
            "why": f"{expectation.why}; {sparing.words}, as there is no time for all",
        }
        yield cheaper, expectation.model_copy(update=told)
