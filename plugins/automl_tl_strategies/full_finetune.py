"""Full fine-tuning: every block learns from the start, the head from zero."""

from __future__ import annotations

from typing import ClassVar, final

from pydantic import Field

from automl_tl.contracts import Expectation, Head, Phase, Recipe, Situation, Strategy
from automl_tl_strategies.lengths import BATCH_SIZE, epochs_for, expected

__all__ = ["FullFinetune"]


@final
class FullFinetune(Strategy):
    """All blocks learn, earlier ones slower. A zero head and frozen batch norm statistics decide whether this works."""

    name: ClassVar[str] = "full_finetune"
    summary: ClassVar[str] = "every block learns; for data unlike the pretraining, and for time"

    lr: float = Field(default=1e-3, gt=0)
    block_decay: float = Field(default=0.8, gt=0, le=1)
    head_factor: float = Field(default=1.0, gt=0, description="rate of the head by that of the block nearest to it")

    def recipe(self, situation: Situation) -> Recipe:
        """One phase."""
        phase = Phase(
            name="fine-tune",
            epochs=epochs_for(situation),
            train_blocks=tuple(range(situation.num_blocks)),
            head_lr=self.lr * self.head_factor,
            encoder_lr=self.lr,
            block_decay=self.block_decay,
        )
        return Recipe(head=Head(start="zero"), phases=(phase,), batch_size=BATCH_SIZE)

    def expect(self, situation: Situation) -> Expectation:
        """A little less than with careful early blocks."""
        return expected(situation, share=0.9, why="adapts every block")
