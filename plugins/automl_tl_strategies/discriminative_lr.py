"""Discriminative learning rates: the head first, then all blocks, the early ones most slowly."""

from __future__ import annotations

from typing import ClassVar, final

from pydantic import Field

from automl_tl.contracts import Expectation, Head, Phase, Recipe, Situation, Strategy
from automl_tl_strategies.lengths import BATCH_SIZE, epochs_for, expected


@final
class DiscriminativeLr(Strategy):
    """fastai's ``fine_tune``: one frozen epoch, then one cycle over all blocks with rates spread over two decades.

    The less similar the images are to the pretraining data, the higher the rate of the early blocks: the spread shrinks to one
    decade (Li et al., arXiv 2002.11770). Unlike in fastai, batch-norm statistics stay frozen.
    """

    name: ClassVar[str] = "discriminative_lr"
    summary: ClassVar[str] = "the head first, then all blocks with learning rates that fall towards the input"

    lr: float = Field(default=1e-3, gt=0, description="learning rate of the last block and, in the second phase, of the head")
    spread: float = Field(
        default=100.0, ge=1, description="learning rate of the last block by that of the first, if similarity is 1"
    )
    groups: int = Field(default=0, ge=0, description="number of layer groups with a shared learning rate; 0: one per block")
    frozen_epochs: int = Field(default=1, ge=1)

    def recipe(self, situation: Situation) -> Recipe:
        """Two phases."""
        dissimilarity = 0.0 if situation.similarity is None else 1 - situation.similarity
        spread = self.spread ** (1 - dissimilarity / 2)
        head_first = Phase(name="head", epochs=self.frozen_epochs, head_lr=2 * self.lr, cached_views=2)
        everything = Phase(
            name="all blocks",
            epochs=epochs_for(situation),
            train_blocks=tuple(range(situation.num_blocks)),
            head_lr=self.lr,
            encoder_lr=self.lr,
            block_factors=self._factors(spread, situation.num_blocks),
            schedule="one_cycle",
        )
        return Recipe(head=Head(start="zero"), phases=(head_first, everything), batch_size=BATCH_SIZE)

    def _factors(self, spread: float, num_blocks: int) -> tuple[float, ...]:
        """Factors from ``1 / spread`` at the input to 1 at the head, in geometric steps from group to group."""
        num_groups = min(self.groups or num_blocks, num_blocks)
        below = [num_groups - 1 - index * num_groups // num_blocks for index in range(num_blocks)]  # the last group
        return tuple(spread ** (-count / max(num_groups - 1, 1)) for count in below)

    def expect(self, situation: Situation) -> Expectation:
        """Slightly less than ``tail``."""
        return expected(situation, share=0.95, why="adapts all blocks, the early ones slowly")
