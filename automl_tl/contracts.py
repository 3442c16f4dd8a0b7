"""Plugin contract: the only module that a plugin imports. Defines ``Backbone``, ``Strategy`` and ``Executor``.

A plugin is an installable Python package that declares entry points:

    [project.entry-points."automl_tl.strategies"]
    my_strategy = "my_package:MyStrategy"          # a subclass of Strategy

    [project.entry-points."automl_tl.backbones"]
    my_provider = "my_package:backbones"           # a function that returns the provider's Backbones

    [project.entry-points."automl_tl.executors"]
    my_cluster = "my_package:MyExecutor"           # returns an Executor: MyExecutor(address, **settings)

    [project.entry-points."automl_tl.contract"]
    version = "v1"                                 # the contract version that the package implements

Importing this module does not import torch. A plugin's modules must not import torch at import time either: import it
inside ``build``. ``CONTRACT_VERSION`` is independent of the package version and changes only when plugins have to change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from pydantic import Field, JsonValue

from automl_tl.values import BackboneCard, Fraction, Head, Phase, Preprocessing, Recipe, Recommendation, Value

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "CONTRACT_VERSION",
    "Answer",
    "Backbone",
    "BackboneCard",
    "Executor",
    "Expectation",
    "Head",
    "Job",
    "Phase",
    "Preprocessing",
    "Recipe",
    "Recommendation",
    "Situation",
    "Slots",
    "Strategy",
]

CONTRACT_VERSION: Final = 1


class Backbone(ABC):
    """A pretrained network.

    ``build`` returns the network with the parameter names of its library, so that any checkpoint of the architecture can be
    loaded. ``cut`` splits it into sequential blocks, from input to output.
    """

    @property
    @abstractmethod
    def card(self) -> BackboneCard:
        """Metadata of the backbone; reading it must not import torch."""

    @abstractmethod
    def build(self, *, pretrained: bool) -> nn.Module:
        """Build the network with its original classifier: eval mode, float32, on the CPU.

        Args:
            pretrained: Whether to load the card's weights; if false, initialize from torch's global random generator.

        Returns:
            The complete network.

        Raises:
            WeightsError: The weights are not available on this machine; the message says how to get them.
        """

    @abstractmethod
    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """Split ``network`` into blocks whose composition computes the features.

        Args:
            network: A network returned by ``build``.

        Returns:
            Modules of ``network`` itself, not copies. Applied in order, they map images ``(B, 3, H, W)``, float32 and
            normalized as the card says, to features ``(B, card.feature_dim)``. Exactly one tensor, with B as its first
            dimension, passes between two blocks. A network that cannot be split is a single block.
        """

    def classifier(self, network: nn.Module) -> nn.Module | None:
        """Return the pretrained head: features ``(B, card.feature_dim)`` to logits of the pretraining classes.

        ``classifier(network)(blocks(x))`` equals ``network(x)``.

        Args:
            network: A network returned by ``build``.

        Returns:
            A module of ``network``, or ``None`` if the network has no classifier.
        """
        return None

    def read_weights(self, network: nn.Module, file: Path) -> Mapping[str, Tensor] | None:
        """Read weights from a file in a format of the backbone's own library.

        Args:
            network: A network returned by ``build``; it is not changed.
            file: The user's file.

        Returns:
            Tensors by their names in ``network``, as far as the file has them; ``None`` for a file in another format:
            safetensors and ``.pth`` files are read without the plugin.

        Raises:
            WeightsError: The file cannot be read, or reading it would run code from it.
        """
        return None


class Situation(Value):
    """Facts about the task, available to a strategy before any training."""

    num_images: int = Field(ge=1, description="number of training images")
    num_classes: int = Field(ge=2, description="number of classes of the training images")
    min_images_per_class: int = Field(ge=1, description="number of training images of the smallest class")
    imbalance: float = Field(default=1.0, ge=1, description="size of the largest class divided by the smallest")
    num_blocks: int = Field(ge=1, description="number of blocks of the network; block 0 is at the input")
    feature_dim: int = Field(ge=1, description="number of features")
    image_side_px: int = Field(ge=1, description="side of the network's input, in pixels")
    similarity: Fraction | None = Field(
        default=None, description="similarity of the images to the pretraining data; null if not measured"
    )
    probe_accuracy: Fraction | None = Field(
        default=None, description="cross-validated accuracy of a linear probe; null if not measured"
    )

    @property
    def images_per_class(self) -> float:
        """Mean number of images per class."""
        return self.num_images / self.num_classes


class Expectation(Value):
    """A strategy's own estimate of its gain, made before training."""

    suits: bool = Field(
        description="whether the strategy suits the situation; if false it is not tried, for the reason in ``why``"
    )
    gain: float = Field(default=0.0, ge=-1, le=1, description="expected accuracy minus that of a linear probe, as a fraction")
    gain_sd: float = Field(default=0.03, ge=0, description="standard deviation of ``gain``")
    why: str = Field(description="one line for the user: the reason to try the strategy, or not to")


class Strategy(Value, ABC):
    """A method for adapting a backbone to new images, described as data. Its pydantic fields are its options.

    Both methods are pure: equal situations and options give equal answers, without side effects.

    Attributes:
        name: Name of the strategy, equal to the name of its entry point.
        summary: One-line description for ``tl plugins list``.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def recipe(self, situation: Situation) -> Recipe:
        """Write the training recipe for ``situation``.

        Args:
            situation: Facts about the images and the backbone; ``num_blocks`` may be any number from 1.

        Returns:
            A recipe that trains existing blocks only, and has phases or a head with a closed-form solver.
        """

    @abstractmethod
    def expect(self, situation: Situation) -> Expectation:
        """Estimate whether the strategy suits ``situation``, and its accuracy gain over a linear probe.

        Args:
            situation: Facts about the images and the backbone.

        Returns:
            The expected gain with its uncertainty. The training time is derived from the recipe, not from this estimate.
        """


class Job(Value):
    """A piece of work for another process, perhaps on another machine: plain JSON."""

    task: str = Field(description="what to do; automl_tl knows its own tasks")
    arguments: dict[str, JsonValue]
    num_cpus: int = Field(default=1, ge=0)
    num_gpus: int = Field(default=0, ge=0)


class Answer(Value):
    """What a job returns: JSON, and perhaps one array or file as bytes with their digest."""

    result: dict[str, JsonValue] = Field(default_factory=dict)
    content: bytes = b""
    digest: str = Field(default="", description="sha256 of ``content``")
    error: str | None = Field(default=None, description="why there is no result")


class Slots(NamedTuple):
    """What an executor can run at once."""

    num_cpus: int
    num_gpus: int


class Executor(ABC):
    """Runs jobs elsewhere.

    The entry point is called with the address behind ``NAME://``, or ``None``, and with the settings of the configuration
    file as keyword arguments; it connects, or raises an exception.
    """

    @property
    @abstractmethod
    def slots(self) -> Slots:
        """What can run at once."""

    @abstractmethod
    def run(
        self, jobs: Iterable[Job], perform: Callable[[Job], Answer], is_over: Callable[[], bool]
    ) -> Iterator[tuple[Job, Answer]]:
        """Run jobs and yield each with its answer as it ends, in any order.

        Jobs are taken from the iterator only as they can soon run, as there may be millions. A job whose machine dies runs
        again elsewhere; one that cannot be run has an answer with ``error``. When ``is_over`` returns true, or the
        iterator is closed, running jobs end at once.

        Args:
            jobs: consumed lazily.
            perform: does a job; a module-level function that every machine with automl_tl can import.
            is_over: whether to stop; asked at least once a second.
        """

    @abstractmethod
    def close(self) -> None:
        """End everything that still runs, and leave."""
