"""Linear probing, then fine-tuning (LP-FT): a fitted head keeps early gradients from distorting the features."""

from __future__ import annotations

from typing import ClassVar, final

from pydantic import Field

from automl_tl.contracts import Expectation, Head, Phase, Recipe, Situation, Strategy
from automl_tl_strategies.lengths import BATCH_SIZE, epochs_for, expected


@final
class ProbeThenFinetune(Strategy):
    """Kumar et al., arXiv 2202.10054; robust under distribution shift.

    The closed-form head is scaled until its training loss equals its out-of-fold loss (Ren et al., arXiv 2302.05779): a fully
    converged head made a run of the pilot study diverge (decision 8).
    """

    name: ClassVar[str] = "probe_then_finetune"
    summary: ClassVar[str] = "fits the head in closed form, then fine-tunes all blocks; robust under distribution shift"

    lr: float = Field(default=5e-4, gt=0)
    block_decay: float = Field(default=0.8, gt=0, le=1)

    def recipe(self, situation: Situation) -> Recipe:
        """A closed-form head, then one phase."""
        phase = Phase(
            name="fine-tune",
            epochs=epochs_for(situation),
            train_blocks=tuple(range(situation.num_blocks)),
            head_lr=self.lr,
            encoder_lr=self.lr,
            block_decay=self.block_decay,
        )
        return Recipe(head=Head(solver="logistic", start="solved"), phases=(phase,), batch_size=BATCH_SIZE)

    def expect(self, situation: Situation) -> Expectation:
        """Slightly less than with discriminative learning rates."""
        return expected(situation, share=0.9, why="adapts all blocks, starting from a fitted head")
