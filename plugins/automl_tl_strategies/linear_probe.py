"""Linear probe: a closed-form linear head on the features of a frozen backbone."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from automl_tl.contracts import Expectation, Head, Recipe, Situation, Strategy


@final
class LinearProbe(Strategy):
    """Extract features once, then fit a regularized linear head, its strength chosen by cross-validation."""

    name: ClassVar[str] = "linear_probe"
    summary: ClassVar[str] = "linear head on frozen features; takes seconds, robust with few images"

    solver: Literal["logistic", "ridge", "lda", "average"] = "average"

    def recipe(self, situation: Situation) -> Recipe:
        """No phases: a closed-form head only."""
        return Recipe(head=Head(solver=self.solver))

    def expect(self, situation: Situation) -> Expectation:
        """No gain over a linear probe, by definition."""
        return Expectation(
            suits=True,
            gain=0.0,
            gain_sd=0.0,
            why="robust at any dataset size and takes seconds; the baseline other strategies must beat",
        )
