"""From scratch: random weights, the baseline that shows the value of pretraining."""

from __future__ import annotations

from typing import ClassVar, final

from pydantic import Field

from automl_tl.contracts import Expectation, Head, Phase, Recipe, Situation, Strategy
from automl_tl_strategies.lengths import BATCH_SIZE, epochs_for


@final
class FromScratch(Strategy):
    """Train all blocks from random weights, with batch-norm statistics updated."""

    name: ClassVar[str] = "from_scratch"
    summary: ClassVar[str] = "trains from random weights; a baseline, or for images unlike photographs"

    lr: float = Field(default=2e-3, gt=0)
    times: float = Field(default=4.0, gt=0, description="training length relative to fine-tuning")

    def recipe(self, situation: Situation) -> Recipe:
        """One long phase."""
        phase = Phase(
            name="from scratch",
            epochs=epochs_for(situation, times=self.times),
            train_blocks=tuple(range(situation.num_blocks)),
            head_lr=self.lr,
            encoder_lr=self.lr,
            augmentation="medium",
            batch_norm="training",
            schedule="one_cycle",
        )
        return Recipe(head=Head(start="random"), phases=(phase,), pretrained=False, batch_size=BATCH_SIZE)

    def expect(self, situation: Situation) -> Expectation:
        """Only with many images per class that are unlike the pretraining data."""
        if situation.images_per_class < 500 or (situation.similarity or 1.0) > 0.15:
            return Expectation(suits=False, why="pretraining is better below 500 images per class and on photographs")
        return Expectation(suits=True, gain=-0.02, gain_sd=0.05, why="many images unlike the pretraining data")
