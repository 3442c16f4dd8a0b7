"""What is checked: an installed entry point, loaded once, asked as often as the checks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from automl_tl.contracts import Expectation, Recipe, Situation, Strategy
from automl_tl.errors import PluginError, near_name
from automl_tl.plugin_host import Catalog, InstalledEntry, LoadedBackbone, LoadedStrategy, discover
from automl_tl.plugin_host.entries import Kind, cause, normal
from automl_tl.plugin_host.isolation import check_blocks_exist
from automl_tl.plugin_host.loading import LoadedPlugin, load
from automl_tl.testing.processes import ImportProbe, probe_import
from automl_tl.testing.trials import Trials, folder_that_goes_away
from automl_tl.testing.verdicts import Unreachable
from automl_tl.values import Value

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["BackboneSubject", "Built", "PluginSubject", "StrategySubject", "find_entries"]

LOCAL: Final = frozenset({"package", "cached", "file"})
Answer = TypeVar("Answer", bound=Value)


def find_entries(named: str, kind: Kind | None = None, catalog: Catalog | None = None) -> tuple[InstalledEntry, ...]:
    """The installed entry points that ``named`` means: an entry point, a distribution, or ``provider/model``.

    Raises:
        PluginError: nothing of that name is installed.
    """
    entries = [entry for entry in (catalog or discover()).entries if kind in (None, entry.plugin.kind)]
    provider = named.partition("/")[0]
    found = tuple(each for each in entries if each.plugin.name == provider or normal(each.plugin.distribution) == normal(named))
    if not found:
        known = {entry.plugin.name for entry in entries} | {entry.plugin.distribution for entry in entries}
        hint = near_name(named, known, "`tl plugins list` shows what is installed.")
        raise PluginError(f"No installed plugin or distribution is called {named!r}. {hint}")
    return found


@dataclass(frozen=True)
class PluginSubject:
    """One entry point. Problems that checks report on their own don't stop it from being loaded here."""

    entry: InstalledEntry
    catalog: Catalog

    @property
    def rivals(self) -> tuple[str, ...]:
        """Other distributions with a plugin of the same name."""
        plugin = self.entry.plugin
        others = (
            each.plugin for each in self.catalog.entries if each.plugin.kind == plugin.kind and each.plugin.name == plugin.name
        )
        return tuple(other.distribution for other in others if other.distribution != plugin.distribution)

    @cached_property
    def import_probe(self) -> ImportProbe:
        """How its module behaves when a new process imports it."""
        return probe_import(self.entry.point)

    @property
    def loadable(self) -> InstalledEntry:
        """The entry without what other checks report."""
        return replace(self.entry, plugin=self.entry.plugin.model_copy(update={"problem": None, "switched_off": False}))

    @cached_property
    def loaded(self) -> LoadedPlugin:
        """What loading gave."""
        return load(self.loadable)

    @cached_property
    def folder(self) -> Path:
        """A place for files; it goes away with the subject."""
        return folder_that_goes_away(self)


@dataclass(frozen=True)
class StrategySubject(PluginSubject):
    """A strategy, and what its training on the toy task gave so far."""

    option_values: dict[str, tuple[object, ...]]

    @property
    def offered(self) -> LoadedStrategy:
        """The strategy inside its error boundary, with default options."""
        if self.loaded.strategy is None:
            raise Unreachable("loads", str(self.loaded.plugin.problem))
        return self.loaded.strategy

    def call(self, question: Callable[[Strategy, Situation], object], situation: Situation) -> tuple[object, Situation]:
        """The raw answer, and the situation as the strategy left it."""
        given = situation.model_copy()
        offered = self.offered
        try:
            return offered.timeout.call(lambda: question(offered.strategy, given)), given
        except TimeoutError as error:
            raise Unreachable("answers_in_time", str(error)) from error

    def recipe(self, situation: Situation, strategy: LoadedStrategy | None = None) -> Recipe:
        """The valid recipe, for checks that go on from there."""
        asked, owner = strategy or self.offered, "recipe_is_valid_for_every_depth"
        recipe = self._valid(Recipe, lambda: asked.strategy.recipe(situation.model_copy()), owner)
        try:
            check_blocks_exist(recipe, situation.num_blocks)
        except ValueError as error:
            raise Unreachable(owner, cause(error)) from error
        return recipe

    def expect(self, situation: Situation, strategy: LoadedStrategy | None = None) -> Expectation:
        """The valid expectation, for checks that go on from there."""
        asked = strategy or self.offered
        return self._valid(Expectation, lambda: asked.strategy.expect(situation.model_copy()), "expectation_is_sane")

    def _valid(self, kind: type[Answer], question: Callable[[], Answer], owner: str) -> Answer:
        try:
            return kind.model_validate(self.offered.timeout.call(question).model_dump(warnings=False))
        except TimeoutError as error:
            raise Unreachable("answers_in_time", str(error)) from error
        except Unreachable:
            raise
        except Exception as error:
            raise Unreachable(owner, cause(error)) from error

    @cached_property
    def trials(self) -> Trials:
        """Training on the toy task."""
        return Trials(self.entry.plugin.name, self.recipe, self.folder)


@dataclass(frozen=True)
class Built:
    """A network with its blocks."""

    network: nn.Module
    blocks: tuple[nn.Module, ...]

    @property
    def state(self) -> dict[str, Tensor]:
        """Tensors of the blocks, by block and name."""
        return {f"{i}.{name}": value for i, block in enumerate(self.blocks) for name, value in block.state_dict().items()}


@dataclass(frozen=True)
class BackboneSubject(PluginSubject):
    """A provider, and the one of its backbones that is looked at closely; absent: the cheapest whose weights are here."""

    model: str | None

    @cached_property
    def offered(self) -> LoadedBackbone:
        """The backbone inside its error boundary."""
        backbones = self.loaded.backbones
        if self.loaded.plugin.problem:
            raise Unreachable("loads", self.loaded.plugin.problem)
        named = [backbone for backbone in backbones if self.model in (None, backbone.card.name)]
        if not named:
            raise Unreachable("card_is_complete", f"it offers no backbone{f' called {self.model}' if self.model else ''}")
        return min(named, key=lambda each: (each.card.weights not in LOCAL, each.card.num_macs or 0))

    @property
    def has_weights(self) -> bool:
        """Pretrained weights can be had on this machine, now."""
        return self.offered.card.weights in LOCAL

    def build(self, *, pretrained: bool) -> Built:
        """A network of its own, for checks that go on from there."""
        try:
            network = self.offered.build(pretrained=pretrained)
            return Built(network, tuple(self.offered.cut(network)))
        except PluginError as error:
            raise Unreachable("builds_on_the_cpu", str(getattr(error, "problem", error))) from error

    @cached_property
    def built(self) -> Built:
        """The network that all checks share which leave it as it is."""
        return self.build(pretrained=self.has_weights)
