"""Strategy surgical: fine-tune only the third of the network that the new images call for."""

from __future__ import annotations

from typing import ClassVar, Literal

from automl_tl.contracts import Expectation, Head, Phase, Recipe, Situation, Strategy
from pydantic import Field

__all__ = ["Part", "Surgical"]

Part = Literal["first", "middle", "last"]


class Surgical(Strategy):
    """Fine-tuning a third of the blocks can beat fine-tuning all of them; which third depends on the distribution shift.

    The first blocks for shifts in appearance (noise, another camera), the middle ones for new features, the last ones for new
    classes. Similarity to the pretraining data stands in for the kind of shift, which is unknown here. Source: Lee et al.,
    Surgical fine-tuning improves adaptation to distribution shifts, ICLR 2023, arXiv 2210.11466.
    """

    name: ClassVar[str] = "surgical"
    summary: ClassVar[str] = "fine-tune the first, middle or last third of the blocks, by similarity"

    part: Part | None = Field(default=None, description="the third to fine-tune; absent: chosen by similarity")
    norm_only: bool = Field(default=False, description="train only scale and shift of the norm layers")
    lr: float = Field(default=1e-3, gt=0, description="learning rate of the blocks and the head")

    def recipe(self, situation: Situation) -> Recipe:
        """Fit the head in closed form, then train for about 100 steps of 32 images."""
        phase = Phase(
            name=f"{self._part(situation)} blocks",
            epochs=max(5, min(100, 100 * 32 // situation.num_images)),
            train_blocks=self._blocks(situation),
            parameters="norm" if self.norm_only else "all",
            head_lr=self.lr,
            encoder_lr=self.lr,
        )
        return Recipe(head=Head(solver="logistic", start="solved"), phases=(phase,))

    def expect(self, situation: Situation) -> Expectation:
        """Expect the more, the less similar the images are to the pretraining data."""
        if situation.min_images_per_class < 10:
            return Expectation(suits=False, why="a class has fewer than 10 images: too few to adapt blocks")
        gain = 0.03 * (1 - (0.5 if situation.similarity is None else situation.similarity))
        return Expectation(suits=True, gain=gain, gain_sd=0.03, why=f"adapts only the {self._part(situation)} third")

    def _part(self, situation: Situation) -> Part:
        if self.part is not None:
            return self.part
        similarity = 0.5 if situation.similarity is None else situation.similarity
        return "first" if similarity < 0.3 else "middle" if similarity < 0.6 else "last"

    def _blocks(self, situation: Situation) -> tuple[int, ...]:
        size = max(1, situation.num_blocks // 3)
        start = {"first": 0, "middle": (situation.num_blocks - size) // 2, "last": situation.num_blocks - size}
        first = start[self._part(situation)]
        return tuple(range(first, first + size))
