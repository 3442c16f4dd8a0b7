"""Linear probe: the backbone stays as it is, one linear head is solved on its features."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from automl_tl.contracts import Expectation, Head, Recipe, Situation, Strategy

__all__ = ["LinearProbe"]


@final
class LinearProbe(Strategy):
    """Features once, then a regularized linear head, its strength chosen by cross-validation."""

    name: ClassVar[str] = "linear_probe"
    summary: ClassVar[str] = "a linear head on frozen features; seconds, safe with few images"

    solver: Literal["logistic", "ridge", "lda", "average"] = "average"

    def recipe(self, situation: Situation) -> Recipe:
        """No phase: the head is solved."""
        return Recipe(head=Head(solver=self.solver))

    def expect(self, situation: Situation) -> Expectation:
        """Nothing above a linear probe, by definition."""
        return Expectation(
            suits=True,
            gain=0.0,
            gain_sd=0.0,
            why="safe with any number of images and done in seconds; others have to show that they gain",
        )
