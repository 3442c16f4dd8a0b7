"""Probe, then fine-tune (LP-FT): the solved head first, so that its early gradients don't spoil the encoder."""

from __future__ import annotations

from typing import ClassVar, final

from pydantic import Field

from automl_tl.contracts import Expectation, Head, Phase, Recipe, Situation, Strategy
from automl_tl_strategies.lengths import BATCH_SIZE, epochs_for, expected

__all__ = ["ProbeThenFinetune"]


@final
class ProbeThenFinetune(Strategy):
    """Kumar et al., arXiv 2202.10054; robust when the images to come differ from those to learn from.

    The solved head is scaled back until its training loss equals its loss out of fold (Ren et al., arXiv 2302.05779, on the
    energy that is left): started fully converged it destroyed a run of the pilot (DECISIONS 8).
    """

    name: ClassVar[str] = "probe_then_finetune"
    summary: ClassVar[str] = "the solved head first, then every block; robust when new images differ"

    lr: float = Field(default=5e-4, gt=0)
    block_decay: float = Field(default=0.8, gt=0, le=1)

    def recipe(self, situation: Situation) -> Recipe:
        """A solved head, then one phase."""
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
        """A little less than with careful early blocks."""
        return expected(situation, share=0.9, why="adapts every block from a settled head")
