"""Imports a plugin and checks that it is what it says; whatever goes wrong becomes the plugin's ``problem``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pydantic import ValidationError

from automl_tl.contracts import Backbone, BackboneCard, Strategy
from automl_tl.errors import PluginFailedError
from automl_tl.plugin_host.entries import InstalledEntry, PluginEntry
from automl_tl.plugin_host.isolation import LoadedBackbone, LoadedStrategy
from automl_tl.plugin_host.timeout import IMPORT_LIMIT_S, Timeout

__all__ = ["SLOW_IMPORT_S", "LoadedPlugin", "load"]

SLOW_IMPORT_S: Final = 0.2  # every command that plans pays it, for every plugin
MAX_BACKBONES: Final = 20_000  # timm has about 1,300; a provider that never ends must not take all memory


@dataclass(frozen=True)
class LoadedPlugin:
    """What became of an entry: its plugin, now with problems and notes, and what it offers if it is sound."""

    plugin: PluginEntry
    backbones: tuple[LoadedBackbone, ...] = ()
    strategy: LoadedStrategy | None = None


def load(entry: InstalledEntry, timeout: Timeout | None = None) -> LoadedPlugin:
    """Import the plugin and check it. Never raises, but for the user's Ctrl-C.

    Entries of one distribution share their ``timeout``: if one hangs, the others are not waited for.
    """
    plugin = entry.plugin
    if not plugin.is_sound:
        return LoadedPlugin(plugin)
    had_torch, started_s = "torch" in sys.modules, time.perf_counter()
    try:
        with plugin.error_boundary("being loaded"):
            thing = (timeout or Timeout(IMPORT_LIMIT_S, disabled=plugin.is_ours)).call(entry.point.load)
            plugin = _timed(plugin, time.perf_counter() - started_s, loads_torch=not had_torch and "torch" in sys.modules)
            if plugin.kind == "backbones":
                return LoadedPlugin(plugin, backbones=_backbones(plugin, thing))
            return LoadedPlugin(plugin, strategy=_strategy(plugin, thing))
    except PluginFailedError as error:
        return LoadedPlugin(plugin.model_copy(update={"problem": error.problem}))


def _timed(plugin: PluginEntry, import_s: float, *, loads_torch: bool) -> PluginEntry:
    notes = []
    if loads_torch:
        notes.append("loads torch when it is imported; torch belongs inside build")
    if import_s > SLOW_IMPORT_S:
        notes.append(f"took {import_s:.1f} s to import; {SLOW_IMPORT_S} s are allowed")
    return plugin.model_copy(update={"import_s": round(import_s, 4), "notes": tuple(notes)})


def _backbones(plugin: PluginEntry, thing: object) -> tuple[LoadedBackbone, ...]:
    if not callable(thing):
        raise TypeError(f"expected a function that gives Backbones, found {type(thing).__name__}")
    read = Timeout(disabled=plugin.is_ours).call(lambda: [_read(backbone) for backbone in _listed(thing())])
    names = [card.name for _, card in read]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"it offers several backbones under one name: {', '.join(twice)}")
    foreign = [name for name in names if name.partition("/")[0] != plugin.name]
    if foreign:
        raise ValueError(
            f"its backbones must be named {plugin.name}/..., after the entry point; found {', '.join(foreign[:3])}"
        )
    return tuple(LoadedBackbone(plugin, backbone, card) for backbone, card in read)


def _listed(given: object) -> list[object]:
    if not isinstance(given, Iterable):
        raise TypeError(f"expected Backbones, found {type(given).__name__}")
    listed = list(islice(given, MAX_BACKBONES + 1))
    if len(listed) > MAX_BACKBONES:
        raise ValueError(f"it offers more than {MAX_BACKBONES} backbones; is its list disabled?")
    return listed


def _read(backbone: object) -> tuple[Backbone, BackboneCard]:
    if not isinstance(backbone, Backbone):
        raise TypeError(f"expected Backbones, found {type(backbone).__name__}")
    card = backbone.card
    if not isinstance(card, BackboneCard):
        raise TypeError(f"expected a BackboneCard as card, found {type(card).__name__}")
    return backbone, BackboneCard.model_validate(card.model_dump(warnings=False))


def _strategy(plugin: PluginEntry, thing: object) -> LoadedStrategy:
    if not (isinstance(thing, type) and issubclass(thing, Strategy)):
        raise TypeError(f"expected a subclass of Strategy, found {thing!r:.80}")
    if getattr(thing, "name", None) != plugin.name:
        raise ValueError(f"its entry point is called {plugin.name!r}, its class says name = {getattr(thing, 'name', None)!r}")
    if not isinstance(getattr(thing, "summary", None), str):
        raise TypeError("its class needs a summary, a line of text")
    try:
        made = Timeout(disabled=plugin.is_ours).call(thing)
    except ValidationError as error:
        missing = ", ".join(str(problem["loc"][0]) for problem in error.errors() if problem["loc"])
        raise TypeError(f"every option needs a default; without a good one: {missing or error}") from error
    return LoadedStrategy(plugin, made)
