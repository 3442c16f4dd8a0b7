"""Full fine-tuning: train all blocks and a head that starts at zero."""

from __future__ import annotations

from typing import ClassVar, final

from pydantic import Field

from automl_tl.contracts import Expectation, Head, Phase, Recipe, Situation, Strategy
from automl_tl_strategies.lengths import BATCH_SIZE, epochs_for, expected


@final
class FullFinetune(Strategy):
    """Train all blocks, early ones more slowly. Needs a zero head and frozen batch-norm statistics to work well."""

    name: ClassVar[str] = "full_finetune"
    summary: ClassVar[str] = "fine-tunes all blocks; for images unlike the pretraining data, if there is time"

    lr: float = Field(default=1e-3, gt=0)
    block_decay: float = Field(default=0.8, gt=0, le=1)
    head_factor: float = Field(default=1.0, gt=0, description="learning rate of the head by that of the block nearest to it")

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
        """Slightly less than with discriminative learning rates."""
        return expected(situation, share=0.9, why="adapts all blocks")
