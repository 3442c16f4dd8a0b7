"""The plugin that checks examine: an installed entry point, loaded and built once for all checks."""

from __future__ import annotations

import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple
from unittest import SkipTest

from automl_tl.contracts import Expectation, Recipe, Situation
from automl_tl.errors import PluginError, PluginFailedError, near_name
from automl_tl.plugin_host import LoadedBackbone, LoadedStrategy, PluginEntry, discover
from automl_tl.plugin_host.catalog import LoadedPlugin, load
from automl_tl.plugin_host.isolation import normal
from automl_tl.runtime.child_processes import run_python
from automl_tl.testing.toy_task import ToyResult, toy_situation, train_on_toy_task

if TYPE_CHECKING:
    from torch import Tensor, nn


class PluginUnderTest:
    """An installed entry point; nothing is imported before a check asks for it."""

    def __init__(self, entry: PluginEntry) -> None:
        self.entry = entry
        self.name = entry.name

    def __str__(self) -> str:
        return f"{self.name} ({self.entry.distribution} {self.entry.version})"

    @cached_property
    def loaded(self) -> LoadedPlugin:
        """The plugin as the host loads it; ``loaded.plugin.problem`` says why it is skipped."""
        return load(self.entry)

    def require_loaded(self) -> None:
        """Skip the check if ``check_loads`` fails."""
        if not self.loaded.plugin.is_sound:
            raise SkipTest("see check_loads")


class StrategyUnderTest(PluginUnderTest):
    """A strategy with its default options."""

    @property
    def strategy(self) -> LoadedStrategy:
        """The strategy inside its error boundary."""
        self.require_loaded()
        assert self.loaded.strategy is not None
        return self.loaded.strategy

    def recipe(self, situation: Situation) -> Recipe:
        """Return the recipe as the host gets it: validated, with existing blocks only."""
        try:
            return self.strategy.recipe(situation)
        except PluginFailedError as error:
            raise AssertionError(f"no valid recipe for {describe(situation)}: {error.problem}") from error

    def expect(self, situation: Situation) -> Expectation:
        """Return the expectation, validated. The host would turn an exception into "does not suit"."""
        loaded, argument = self.strategy, situation.model_copy()
        try:
            expectation = loaded.strategy.expect(argument)
        except Exception as error:
            raise AssertionError(f"no valid expectation for {describe(situation)}: {type(error).__name__}: {error}") from error
        assert argument == situation, "expect changed the situation that it was given"
        assert isinstance(expectation, Expectation), f"expected an Expectation, found {type(expectation).__name__}"
        return Expectation.model_validate(expectation.model_dump(warnings=False))

    @cached_property
    def toy_recipe(self) -> Recipe:
        """The recipe for the toy task."""
        return self.recipe(toy_situation())

    @cached_property
    def toy_result(self) -> ToyResult:
        """The result of training on the toy task."""
        return train_on_toy_task(self.name, self.toy_recipe)


class Built(NamedTuple):
    """A network with its blocks."""

    network: nn.Module
    blocks: tuple[nn.Module, ...]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of the blocks, named ``block.name``."""
        return {f"{i}.{name}": tensor for i, block in enumerate(self.blocks) for name, tensor in block.state_dict().items()}


class BackboneUnderTest(PluginUnderTest):
    """A provider and one of its backbones: ``model``, or else the cheapest whose weights are on this machine."""

    def __init__(self, entry: PluginEntry, model: str | None = None) -> None:
        super().__init__(entry)
        self.model = model

    @cached_property
    def backbone(self) -> LoadedBackbone:
        """The backbone inside its error boundary."""
        self.require_loaded()
        backbones = [backbone for backbone in self.loaded.backbones.values() if self.model in (None, backbone.card.name)]
        if not backbones:
            raise SkipTest("see check_cards")
        return min(backbones, key=lambda backbone: (not backbone.card.is_local, backbone.card.num_macs or 0))

    def build(self, *, pretrained: bool) -> Built:
        """Build a network of its own for one check."""
        try:
            network = self.backbone.build(pretrained=pretrained)
            return Built(network, tuple(self.backbone.cut(network)))
        except PluginFailedError as error:
            raise AssertionError(f"{error.description}: {error.problem}") from error

    @cached_property
    def built(self) -> Built:
        """The network shared by all checks that do not change it; pretrained if possible."""
        return self.build(pretrained=self.backbone.card.is_local)


def find_plugins(name: str) -> list[StrategyUnderTest | BackboneUnderTest]:
    """Return the installed plugins that ``name`` refers to, without importing them.

    Args:
        name: a strategy, a provider, a backbone ``provider/model``, or a distribution for everything in it.

    Raises:
        PluginError: nothing of that name is installed.
    """
    provider, _, model = name.partition("/")
    entries = discover().installed
    matches = [
        entry
        for entry in entries
        if (entry.name == provider and (entry.kind == "backbones" or not model)) or normal(entry.distribution) == normal(name)
    ]
    if not matches:
        known = {entry.name for entry in entries} | {entry.distribution for entry in entries}
        hint = near_name(name, known, "`tl plugins list` shows what is installed.")
        raise PluginError(f"No installed plugin or distribution is called {name!r}. {hint}")
    return [
        StrategyUnderTest(entry) if entry.kind == "strategy" else BackboneUnderTest(entry, name if model else None)
        for entry in matches
    ]


def describe(situation: Situation) -> str:
    """Return the numbers of images, classes and blocks."""
    return f"num_images={situation.num_images}, num_classes={situation.num_classes}, num_blocks={situation.num_blocks}"


def lines_printed_by(script: str, *arguments: str) -> list[str]:
    """Run ``script`` in a new process with another hash seed and return the lines that it prints."""
    import_path = os.pathsep.join(folder for folder in sys.path if folder)  # "" is the working directory
    environment = {"PYTHONPATH": import_path, "PYTHONHASHSEED": "4711"}
    process = run_python(["-c", script, *arguments], environment=environment, timeout_s=60)
    assert process.returncode == 0, f"a new process failed: {process.stderr.strip().splitlines()[-1:]}"
    return process.stdout.splitlines()
