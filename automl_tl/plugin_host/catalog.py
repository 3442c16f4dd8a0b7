"""Installed plugins by name. A plugin is imported when one of its names is requested."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Final, TypeVar

from pydantic import ValidationError

from automl_tl.contracts import Backbone, BackboneCard, Executor, Strategy
from automl_tl.errors import (
    AutomlTlError,
    ExecutorError,
    MissingExtraError,
    PluginError,
    UnknownBackboneError,
    UnknownStrategyError,
    near_name,
)
from automl_tl.plugin_host.isolation import LEVELS, PLUS, Kind, LoadedBackbone, LoadedStrategy, PluginEntry

_log = logging.getLogger(__name__)

SLOW_IMPORT_S: Final = 0.2  # added to every command that plans
Item = TypeVar("Item")


@dataclass(frozen=True)
class LoadedPlugin:
    """An imported plugin: its entry, now with problem and notes, and what it provides if it is sound."""

    plugin: PluginEntry
    backbones: Mapping[str, LoadedBackbone] = field(default_factory=dict)
    strategy: LoadedStrategy | None = None
    connect: Callable[..., Executor] | None = None


def load(plugin: PluginEntry) -> LoadedPlugin:
    """Import ``plugin`` and check what it provides. A failure becomes the entry's ``problem``."""
    if not plugin.is_sound:
        return LoadedPlugin(plugin)
    had_torch, started_s = "torch" in sys.modules, time.perf_counter()
    try:
        with plugin.error_boundary("being loaded"):
            target = plugin.import_target()
            import_s, loads_torch = time.perf_counter() - started_s, not had_torch and "torch" in sys.modules
            _log.debug("imported plugin %s (%s) in %.3f s", plugin.name, plugin.distribution, import_s)
            notes = ["loads torch when it is imported; torch belongs inside build"] if loads_torch else []
            if import_s > SLOW_IMPORT_S:
                notes.append(f"took {import_s:.1f} s to import; {SLOW_IMPORT_S} s are allowed")
            plugin = plugin.model_copy(update={"import_s": round(import_s, 4), "notes": tuple(notes)})
            if plugin.kind == "backbones":
                return LoadedPlugin(plugin, backbones=_backbones(plugin, target))
            if plugin.kind == "executor":
                return LoadedPlugin(plugin, connect=_connect(target))
            return LoadedPlugin(plugin, strategy=_strategy(plugin, target))
    except MissingExtraError as error:
        return LoadedPlugin(plugin.model_copy(update={"needs": str(error)}))
    except AutomlTlError as error:
        return LoadedPlugin(plugin.model_copy(update={"problem": getattr(error, "problem", str(error))}))


def _backbones(plugin: PluginEntry, target: object) -> dict[str, LoadedBackbone]:
    if not callable(target):
        raise TypeError(f"expected a function that returns backbones, found {type(target).__name__}")
    backbones: dict[str, LoadedBackbone] = {}
    for backbone in target():
        if not isinstance(backbone, Backbone):
            raise TypeError(f"expected a Backbone, found {type(backbone).__name__}")
        loaded = LoadedBackbone(plugin, backbone)
        if not isinstance(loaded.card, BackboneCard):
            raise TypeError(f"expected a BackboneCard as card, found {type(loaded.card).__name__}")
        name = loaded.card.name
        if name in backbones:
            raise ValueError(f"it provides several backbones named {name}")
        if name.partition("/")[0] != plugin.name:
            raise ValueError(f"its backbones must be named {plugin.name}/..., after the entry point; found {name}")
        backbones[name] = loaded
    return backbones


def _strategy(plugin: PluginEntry, target: object) -> LoadedStrategy:
    if not (isinstance(target, type) and issubclass(target, Strategy)):
        raise TypeError(f"expected a subclass of Strategy, found {target!r:.80}")
    name, summary = getattr(target, "name", None), getattr(target, "summary", None)
    if name != plugin.name or not isinstance(summary, str):
        raise ValueError(f"expected the attributes name = {plugin.name!r} and summary (one line); found {name!r}, {summary!r}")
    return LoadedStrategy(plugin, target())  # raises if an option has no default


def _connect(target: object) -> Callable[..., Executor]:
    if not callable(target):
        raise TypeError(f"expected a subclass of Executor or a function that returns one, found {target!r:.80}")
    return target


class _Lookup(Mapping[str, Item]):
    """Items by name. A lookup imports the plugin of that name alone, listing imports all."""

    def __init__(self, find: Callable[[str], Item], names: Callable[[], Iterator[str]]) -> None:
        self._find, self._names = find, names

    def __getitem__(self, name: str) -> Item:
        return self._find(name)

    def __iter__(self) -> Iterator[str]:
        return self._names()

    def __len__(self) -> int:
        return sum(1 for _ in self._names())


class Catalog:
    """Backbones and strategies of the installed plugins. Plugins with a problem are listed, but provide nothing."""

    def __init__(self, installed: Iterable[PluginEntry], *, excluded: frozenset[str] = frozenset()) -> None:
        self.installed = tuple(installed)
        self.excluded = excluded
        self._loaded: dict[int, LoadedPlugin] = {}
        self.backbones: Mapping[str, LoadedBackbone] = _Lookup(self._find_backbone, self._backbone_names)
        self.strategies: Mapping[str, LoadedStrategy] = _Lookup(self._find_strategy, self._strategy_names)

    @property
    def plugins(self) -> tuple[PluginEntry, ...]:
        """Every entry point with its problem and notes. Imports the plugins."""
        return tuple(loaded.plugin for loaded in self._load())

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each plugin with a problem. Imports the plugins."""
        skipped = [plugin for plugin in self.plugins if plugin.problem]
        return tuple(
            f"skipping plugin {p.name!r} ({p.distribution} {p.version}, {p.entry_point}): {p.problem}" for p in skipped
        )

    def without(self, backbone: str) -> Catalog:
        """Return a catalog without a backbone that failed. Nothing is imported again."""
        other = Catalog(self.installed, excluded=self.excluded | {backbone})
        other._loaded = self._loaded
        return other

    def backbone(self, name: str) -> LoadedBackbone:
        """Return the backbone ``provider/model``, the ensemble of several joined by ``+``, or ``NAME:levels``.

        Raises:
            UnknownBackboneError: No installed plugin provides it; similar names are suggested.
            PluginError: Its provider is skipped; the message says why.
        """
        if name not in self.backbones:
            self._raise_problem("backbones", name.partition("/")[0])
            raise UnknownBackboneError(name, tuple(self.backbones))
        return self.backbones[name]

    def strategy(self, name: str, options: Mapping[str, object] | None = None) -> LoadedStrategy:
        """Return the strategy ``name``, with ``options`` in place of its defaults.

        Args:
            name: of an installed strategy.
            options: by name; they replace the defaults.

        Raises:
            UnknownStrategyError: No installed plugin provides it; similar names are suggested.
            PluginError: It is skipped, or does not accept the options; the message says why.
        """
        if name not in self.strategies:
            self._raise_problem("strategy", name)
            raise UnknownStrategyError(name, tuple(self.strategies))
        default = self.strategies[name]
        with default.plugin.error_boundary(f"receiving the options {dict(options or {})}"):
            try:
                return LoadedStrategy(default.plugin, type(default.strategy)(**(options or {})))
            except ValidationError as error:
                wrong = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
                known = ", ".join(f"{option}={value!r}" for option, value in default.options.items()) or "none"
                raise PluginError(
                    f"The strategy {name!r} does not accept these options ({wrong}). Its options, with defaults: {known}."
                ) from error

    def executor(self, name: str, address: str | None, settings: Mapping[str, object], *, also: Iterable[str] = ()) -> Executor:
        """Return a connected executor.

        Args:
            name: of its entry point.
            address: where it is, if it needs that.
            settings: what else it takes.
            also: other names that the user may have meant.

        Raises:
            ExecutorError: No installed plugin provides it, or it does not take these settings, or it cannot be reached.
            PluginError: It is skipped; the message says why.
        """
        for loaded in self._load("executor", name):
            if loaded.connect:
                with loaded.plugin.error_boundary("connecting"):
                    try:
                        signature(loaded.connect).bind(address, **settings)
                    except TypeError as error:
                        raise ExecutorError(f"The executor {name!r} does not accept these settings: {error}.") from error
                    return loaded.connect(address, **settings)
        self._raise_problem("executor", name)
        names = sorted({plugin.name for plugin in self.installed if plugin.kind == "executor"} | set(also))
        hint = near_name(name, names, f"Expected one of {', '.join(names)}.")
        raise ExecutorError(f"There is no executor {name!r}. {hint}")

    def _load(self, kind: Kind | None = None, name: str | None = None) -> Iterator[LoadedPlugin]:
        for index, plugin in enumerate(self.installed):
            if kind in (None, plugin.kind) and name in (None, plugin.name):
                if index not in self._loaded:
                    self._loaded[index] = load(plugin)
                yield self._loaded[index]

    def _find_backbone(self, name: str) -> LoadedBackbone:
        if name in self.excluded:
            raise KeyError(name)
        if PLUS in name:
            from automl_tl.plugin_host.ensemble import Ensemble  # imports torch

            return Ensemble([self._find_backbone(member) for member in name.split(PLUS)])
        if name.endswith(LEVELS):
            from automl_tl.plugin_host.levels import multi_level  # imports torch

            return multi_level(self._find_backbone(name.removesuffix(LEVELS)))
        for loaded in self._load("backbones", name.partition("/")[0]):
            if name in loaded.backbones:
                return loaded.backbones[name]
        raise KeyError(name)

    def _backbone_names(self) -> Iterator[str]:
        return (name for loaded in self._load("backbones") for name in loaded.backbones if name not in self.excluded)

    def _find_strategy(self, name: str) -> LoadedStrategy:
        for loaded in self._load("strategy", name):
            if loaded.strategy:
                return loaded.strategy
        raise KeyError(name)

    def _strategy_names(self) -> Iterator[str]:
        return (loaded.strategy.name for loaded in self._load("strategy") if loaded.strategy)

    def _raise_problem(self, kind: Kind, name: str) -> None:
        """Raise the reason if a plugin of this name is installed, but skipped."""
        for loaded in self._load(kind, name):
            plugin = loaded.plugin
            if plugin.disabled:
                raise PluginError(
                    f"The plugin {name!r} ({plugin.distribution}) is disabled by TL_DISABLE_PLUGINS or --no-plugins."
                )
            if plugin.needs:
                raise PluginError(f"The plugin {name!r} ({plugin.distribution}) {plugin.needs}.")
            if plugin.problem:
                raise plugin.failed("being loaded", plugin.problem)
