"""Backbones and strategies inside their error boundary: the host talks to these, never to a plugin's object itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from automl_tl.contracts import Backbone, BackboneCard, Expectation, Recipe, Situation, Strategy
from automl_tl.errors import PluginError
from automl_tl.plugin_host.entries import PluginEntry
from automl_tl.plugin_host.timeout import Timeout
from automl_tl.values import Value

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LoadedBackbone", "LoadedStrategy", "check_blocks_exist"]

Answer = TypeVar("Answer", bound=Value)


class LoadedBackbone:
    """A backbone inside its error boundary. Its card was read and checked when it was loaded."""

    def __init__(self, plugin: PluginEntry, backbone: Backbone, card: BackboneCard | None = None) -> None:
        self.plugin, self._backbone = plugin, backbone
        self.card: BackboneCard = card or backbone.card

    def error_boundary(self, what: str) -> AbstractContextManager[None]:
        """For work of the host with somebody else's network; ``what`` was done with it. Our own networks need none."""
        return nullcontext() if self.plugin.is_ours else self.plugin.error_boundary(f"{self.card.name} {what}")

    def build(self, *, pretrained: bool) -> nn.Module:
        """See ``Backbone.build``."""
        with self.plugin.error_boundary(f"building {self.card.name}"):
            return _network(self._backbone.build(pretrained=pretrained), "build")

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """See ``Backbone.cut``."""
        with self.plugin.error_boundary(f"cutting {self.card.name} into blocks"):
            blocks = tuple(_network(block, "each block") for block in self._backbone.cut(network))
            if not blocks:
                raise ValueError("it gave no block at all; what can't be cut is one block")
            return blocks

    def classifier(self, network: nn.Module) -> nn.Module | None:
        """See ``Backbone.classifier``."""
        with self.plugin.error_boundary(f"taking the classifier of {self.card.name}"):
            found = self._backbone.classifier(network)
            return None if found is None else _network(found, "classifier")


def _network(given: object, what: str) -> nn.Module:
    from torch import nn

    if not isinstance(given, nn.Module):
        raise TypeError(f"expected an nn.Module as {what}, found {type(given).__name__}")
    return given


class LoadedStrategy:
    """A strategy with its options, inside its error boundary; every answer is checked again.

    The plugin works on copies and has ``timeout.limit_s`` seconds for an answer, so that nothing it does to what it was
    given, or fails to do, reaches the host.
    """

    def __init__(self, plugin: PluginEntry, strategy: Strategy, timeout: Timeout | None = None) -> None:
        self.plugin, self.strategy = plugin, strategy
        self.name = plugin.name
        self.timeout = timeout or Timeout(disabled=plugin.is_ours)

    @property
    def options(self) -> dict[str, object]:
        """The options as JSON data."""
        with self.plugin.error_boundary("saying its options"):
            return self.strategy.model_dump(mode="json")

    def recipe(self, situation: Situation) -> Recipe:
        """See ``Strategy.recipe``; blocks that don't exist are refused.

        Raises:
            PluginFailedError: there is no valid recipe, for whatever reason.
        """
        with self.plugin.error_boundary("writing its recipe"):
            recipe = self._ask(Recipe, lambda strategy, given: strategy.recipe(given), situation)
            check_blocks_exist(recipe, situation.num_blocks)
        return recipe

    def expect(self, situation: Situation) -> Expectation:
        """See ``Strategy.expect``; never raises: a strategy that can't answer, or has no valid recipe, doesn't suit."""
        try:
            with self.plugin.error_boundary("saying what it expects"):
                expected = self._ask(Expectation, lambda strategy, given: strategy.expect(given), situation)
            if expected.suits:
                self.recipe(situation)
        except PluginError as error:
            return Expectation(suits=False, why=str(error))
        return expected

    def _ask(self, kind: type[Answer], question: Callable[[Strategy, Situation], object], situation: Situation) -> Answer:
        given = situation.model_copy()
        answer = self.timeout.call(lambda: question(self.strategy.model_copy(deep=True), given))
        if given != situation:
            raise ValueError("it changed the situation that it was given")
        if not isinstance(answer, kind):
            raise TypeError(f"expected {kind.__name__}, found {type(answer).__name__}")
        return kind.model_validate(answer.model_dump(warnings=False))  # what was made with model_construct is checked here


def check_blocks_exist(recipe: Recipe, num_blocks: int) -> None:
    """Refuse a recipe that can't be carried out on ``num_blocks`` blocks.

    Raises:
        ValueError: a phase trains blocks that don't exist, or nothing learns at all.
    """
    for phase in recipe.phases:
        beyond = [index for index in phase.train_blocks if not 0 <= index < num_blocks]
        if beyond:
            raise ValueError(f"phase {phase.name!r} trains blocks {beyond}, but there are blocks 0 to {num_blocks - 1} only")
    if not recipe.phases and recipe.head.solver is None:
        raise ValueError("a recipe without phases needs a head with a solver, else nothing learns")
