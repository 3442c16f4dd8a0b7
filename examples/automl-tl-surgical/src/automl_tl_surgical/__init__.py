"""surgical: only the part of the network that the new images call for is adapted."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from automl_tl.contracts import Expectation, Head, Phase, Recipe, Situation, Strategy
from pydantic import Field

__all__ = ["Surgical"]

Part = Literal["first", "middle", "last"]


@final
class Surgical(Strategy):
    """Tuning a third of the blocks can beat tuning all of them: which third depends on how the images differ.

    Where they look different (noise, another camera), the first blocks; where other features matter, the middle; where only
    the classes are new, the last. Lee et al., Surgical fine-tuning improves adaptation to distribution shifts, ICLR 2023,
    arXiv 2210.11466. Similarity to the pretraining data stands in for the kind of shift, which is not known here.
    """

    name: ClassVar[str] = "surgical"
    summary: ClassVar[str] = "one third of the blocks learns: first, middle or last, by how the images differ"

    part: Part | None = Field(default=None, description="which third learns; absent: decided by similarity")
    norm_only: bool = Field(default=False, description="in those blocks only scale and shift of the norm layers learn")
    lr: float = Field(default=1e-3, gt=0, description="of the blocks that learn and of the head")

    def recipe(self, situation: Situation) -> Recipe:
        """The head is solved first, then one phase of about 100 steps of 32 images."""
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
        """Something where images differ from the pretraining, next to nothing where they don't."""
        if situation.min_images_per_class < 10:
            return Expectation(suits=False, why="a class has fewer than 10 images: too few to adapt blocks")
        gain = 0.03 * (1 - (0.5 if situation.similarity is None else situation.similarity))
        return Expectation(suits=True, gain=gain, gain_sd=0.03, why=f"adapts the {self._part(situation)} third alone")

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
