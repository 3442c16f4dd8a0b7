"""Tail: train the last blocks on cached activations of the others; between a linear probe and full fine-tuning."""

from __future__ import annotations

from typing import ClassVar, final

from pydantic import Field

from automl_tl.contracts import Expectation, Head, Phase, Recipe, Situation, Strategy
from automl_tl_strategies.lengths import BATCH_SIZE, expected


@final
class Tail(Strategy):
    """The frozen blocks run once per view; an epoch then runs the last blocks only. The head starts at zero."""

    name: ClassVar[str] = "tail"
    summary: ClassVar[str] = "fine-tunes the last blocks on cached activations; most of the gain at a fraction of the cost"

    fraction: float = Field(default=0.4, gt=0, le=1, description="share of the blocks that are trained")
    views: int = Field(default=4, ge=1, description="cached views per image: one plain, the others augmented")
    epochs: int = Field(default=12, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    block_decay: float = Field(default=0.8, gt=0, le=1)

    def recipe(self, situation: Situation) -> Recipe:
        """One phase."""
        num_trained = max(1, round(situation.num_blocks * self.fraction))
        phase = Phase(
            name="tail",
            epochs=self.epochs,
            train_blocks=tuple(range(situation.num_blocks - num_trained, situation.num_blocks)),
            head_lr=self.lr,
            encoder_lr=self.lr,
            block_decay=self.block_decay,
            cached_views=self.views,
        )
        return Recipe(head=Head(start="zero"), phases=(phase,), batch_size=BATCH_SIZE)

    def expect(self, situation: Situation) -> Expectation:
        """The gain of fine-tuning all blocks, as measured on six datasets."""
        return expected(situation, share=1.0, why="adapts the last blocks at a fraction of the cost of all")
