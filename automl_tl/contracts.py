"""All that a plugin may import: what a backbone and a strategy are.

A plugin is an ordinary package with entry points:

    [project.entry-points."automl_tl.strategies"]
    my_strategy = "my_package:MyStrategy"          # a class, child of Strategy

    [project.entry-points."automl_tl.backbones"]
    my_provider = "my_package:backbones"           # a function that gives the Backbones of this provider

    [project.entry-points."automl_tl.contract"]
    version = "v1"                                 # the contract that the package was written for

Importing this module loads no torch, and a plugin's module must not load it at import either: torch belongs inside
``build``. ``CONTRACT_VERSION`` counts apart from the package's version: it changes only when plugins must.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import Field

from automl_tl.values import BackboneCard, Fraction, Head, Phase, Preprocessing, Recipe, Value

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "CONTRACT_VERSION",
    "Backbone",
    "BackboneCard",
    "Expectation",
    "Head",
    "Phase",
    "Preprocessing",
    "Recipe",
    "Situation",
    "Strategy",
]

CONTRACT_VERSION: Final = 1


class Backbone(ABC):
    """A pretrained network that a plugin offers.

    ``build`` gives the network as its library knows it, parameter names included, so that anybody's weights for the
    architecture fit. ``cut`` takes it apart into blocks, from input to output.
    """

    @property
    @abstractmethod
    def card(self) -> BackboneCard:
        """Facts; must be readable without torch."""

    @abstractmethod
    def build(self, *, pretrained: bool) -> nn.Module:
        """The network, with its original classifier, in eval mode, float32, on the CPU.

        Args:
            pretrained: with the card's weights, else freshly initialized from torch's global generator.

        Raises:
            WeightsError: the weights can't be had here; the text says what to do.
        """

    @abstractmethod
    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """Blocks of ``network`` (its own modules, not copies) whose composition gives features.

        Composed they map images ``(B, 3, H, W)``, float32, normalized by the card, to ``(B, card.feature_dim)``. Every
        boundary between two blocks passes exactly one tensor whose first dimension is B. What can't be cut is one block.
        """

    def classifier(self, network: nn.Module) -> nn.Module | None:
        """The pretrained head, from features ``(B, card.feature_dim)`` to logits of the source classes.

        ``classifier(network)(blocks(x)) == network(x)``. ``None`` when the network has none.
        """
        return None


class Situation(Value):
    """What a strategy may know before it writes its recipe."""

    num_images: int = Field(ge=1, description="images to learn from")
    num_classes: int = Field(ge=2, description="of those images")
    min_images_per_class: int = Field(ge=1, description="images of the smallest class")
    imbalance: float = Field(default=1.0, ge=1, description="largest class by smallest class")
    num_blocks: int = Field(ge=1, description="of the network; block 0 is at the input")
    feature_dim: int = Field(ge=1, description="width of the features")
    image_side_px: int = Field(ge=1, description="side of the network's input")
    similarity: Fraction | None = Field(default=None, description="of the images to the pretraining data; absent: not measured")
    probe_accuracy: Fraction | None = Field(default=None, description="cross-validated accuracy of a linear probe, if measured")

    @property
    def images_per_class(self) -> float:
        """Mean number of images per class."""
        return self.num_images / self.num_classes


class Expectation(Value):
    """What a strategy expects of itself, before it is tried."""

    suits: bool = Field(description="false: don't try, ``why`` tells the user")
    gain: float = Field(default=0.0, ge=-1, le=1, description="expected accuracy minus that of a linear probe, as a fraction")
    gain_sd: float = Field(default=0.03, ge=0, description="standard deviation of ``gain``")
    why: str = Field(description="one line for the user, good in a plan as a reason")


class Strategy(Value, ABC):
    """A way to adapt a backbone to new images, as data. Its pydantic fields are its options.

    Pure: the same situation and options give the same answer, and nothing is changed.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def recipe(self, situation: Situation) -> Recipe:
        """What the trainer shall do in ``situation``; valid for every number of blocks from 1 on."""

    @abstractmethod
    def expect(self, situation: Situation) -> Expectation:
        """Whether the strategy suits ``situation`` and what it would gain there. Its cost follows from the recipe."""
