"""Gradual unfreezing: train the last group of blocks, then unfreeze one earlier group at a time."""

from __future__ import annotations

from itertools import accumulate
from typing import ClassVar, final

from pydantic import Field

from automl_tl.contracts import Expectation, Head, Phase, Recipe, Situation, Strategy
from automl_tl_strategies.lengths import BATCH_SIZE, epochs_for, expected


@final
class GradualUnfreeze(Strategy):
    """As in ULMFiT (arXiv 1801.06146): unfreeze a group, train, unfreeze the next; learning rates fall by 2.6 per group.

    Activations of frozen blocks are cached, so that epochs of the first phases are cheap.
    """

    name: ClassVar[str] = "gradual_unfreeze"
    summary: ClassVar[str] = "unfreezes one group of blocks after another, from the head down"

    groups: int = Field(default=4, ge=1, description="number of groups; at most one per block")
    lr: float = Field(default=1e-3, gt=0)
    decay_per_group: float = Field(default=1 / 2.6, gt=0, le=1)
    views: int = Field(default=4, ge=1, description="cached views per image while blocks are frozen")

    def recipe(self, situation: Situation) -> Recipe:
        """One phase for the head, then one per group."""
        num_groups = min(self.groups, situation.num_blocks)
        sizes = [
            situation.num_blocks * (i + 1) // num_groups - situation.num_blocks * i // num_groups for i in range(num_groups)
        ]
        epochs = max(1, round(epochs_for(situation, times=1.5) / num_groups))
        decay = self.decay_per_group ** (num_groups / situation.num_blocks)
        phases = [Phase(name="head", epochs=epochs, head_lr=self.lr, cached_views=self.views)]
        for number, count in enumerate(accumulate(reversed(sizes)), start=1):
            phases.append(
                Phase(
                    name=f"top {count} blocks",
                    epochs=epochs,
                    train_blocks=tuple(range(situation.num_blocks - count, situation.num_blocks)),
                    head_lr=self.lr,
                    encoder_lr=self.lr,
                    block_decay=decay,
                    cached_views=0 if number == num_groups else self.views,
                )
            )
        return Recipe(head=Head(start="zero"), phases=tuple(phases), batch_size=BATCH_SIZE)

    def expect(self, situation: Situation) -> Expectation:
        """Slightly less than ``tail``: each group is trained for a share of the epochs only."""
        return expected(situation, share=0.95, why="adapts one group of blocks after another")
