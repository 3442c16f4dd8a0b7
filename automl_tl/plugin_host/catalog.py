"""What is installed, by name. Names are known from metadata; a plugin is imported when one of its names is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn

from pydantic import ValidationError

from automl_tl.errors import PluginError, UnknownBackboneError, UnknownStrategyError
from automl_tl.plugin_host.ensemble import PLUS, ensemble
from automl_tl.plugin_host.entries import InstalledEntry, Kind, PluginEntry
from automl_tl.plugin_host.isolation import LoadedBackbone, LoadedStrategy
from automl_tl.plugin_host.loading import LoadedPlugin, load
from automl_tl.plugin_host.timeout import IMPORT_LIMIT_S, Timeout

__all__ = ["Catalog"]


class Catalog:
    """Everything that is installed. Of what is broken, the plugin with its problem is all that is here."""

    def __init__(self, found: Iterable[InstalledEntry], *, without: frozenset[str] = frozenset()) -> None:
        self.entries = tuple(found)
        self._without = without
        self._loaded: dict[int, LoadedPlugin] = {}
        self._timeouts: dict[str, Timeout] = {}
        self.backbones: Mapping[str, LoadedBackbone] = _Backbones(self, without)
        self.strategies: Mapping[str, LoadedStrategy] = _Strategies(self)

    @property
    def installed(self) -> tuple[PluginEntry, ...]:
        """Every entry point, as its metadata has it. Imports nothing."""
        return tuple(entry.plugin for entry in self.entries)

    @property
    def plugins(self) -> tuple[PluginEntry, ...]:
        """Every entry point, those left out with their problem. Imports the plugins."""
        return tuple(loaded.plugin for loaded in self.load())

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each plugin that is left out. Imports the plugins."""
        return tuple(
            f"the plugin {each.name!r} ({each.distribution} {each.version}, {each.entry_point}) is left out: {each.problem}"
            for each in self.plugins
            if each.problem
        )

    def without(self, backbone: str) -> Catalog:
        """The same, but for a backbone that turned out not to work. Nothing is imported again."""
        other = Catalog(self.entries, without=self._without | {backbone})
        other._loaded, other._timeouts = self._loaded, self._timeouts
        return other

    def leaves_out(self, backbone: str) -> bool:
        """Whether ``without`` took it away."""
        return backbone in self._without

    def load(self, kind: Kind | None = None, name: str | None = None) -> Iterator[LoadedPlugin]:
        """The entries of ``kind`` called ``name``, imported; absent: any."""
        for number, entry in enumerate(self.entries):
            if kind in (None, entry.plugin.kind) and name in (None, entry.plugin.name):
                if number not in self._loaded:
                    timeout = self._timeouts.setdefault(
                        entry.plugin.distribution, Timeout(IMPORT_LIMIT_S, disabled=entry.plugin.is_ours)
                    )
                    self._loaded[number] = load(entry, timeout)
                yield self._loaded[number]

    def backbone(self, name: str) -> LoadedBackbone:
        """The backbone called ``provider/model``.

        Raises:
            UnknownBackboneError: no installed plugin provides it; similar names are suggested.
            PluginError: its provider is left out; the text says why.
        """
        if name not in self.backbones:
            self._explain("backbones", name.partition("/")[0])
            raise UnknownBackboneError(name, tuple(self.backbones))
        return self.backbones[name]

    def strategy(self, name: str, options: Mapping[str, object] | None = None) -> LoadedStrategy:
        """The strategy called ``name``, with ``options`` in place of its defaults.

        Raises:
            UnknownStrategyError: no installed plugin provides it; similar names are suggested.
            PluginError: it is left out, or doesn't take these options; the text says why.
        """
        if name not in self.strategies:
            self._explain("strategy", name)
            raise UnknownStrategyError(name, tuple(self.strategies))
        offered = self.strategies[name]
        with offered.plugin.error_boundary(f"taking the options {dict(options or {})}"):
            try:
                made = offered.timeout.call(lambda: type(offered.strategy)(**(options or {})))
            except ValidationError as error:
                _refuse(name, offered, error)
        return LoadedStrategy(offered.plugin, made, offered.timeout)

    def _explain(self, kind: Kind, name: str) -> None:
        """Raise if a plugin of this name is here, but left out."""
        for loaded in self.load(kind, name):
            if loaded.plugin.switched_off:
                raise PluginError(
                    f"The plugin {name!r} ({loaded.plugin.distribution}) is switched off by TL_DISABLE_PLUGINS or --no-plugins."
                )
            if loaded.plugin.problem:
                raise loaded.plugin.failed("being loaded", loaded.plugin.problem)


def _refuse(name: str, offered: LoadedStrategy, error: ValidationError) -> NoReturn:
    wrong = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
    options = ", ".join(f"{option}={value!r}" for option, value in offered.options.items()) or "none"
    raise PluginError(
        f"The strategy {name!r} doesn't take these options ({wrong}). Its options, with defaults: {options}."
    ) from error


class _Backbones(Mapping[str, LoadedBackbone]):
    """Name -> backbone, of all providers that are sound. Asking for ``provider/model`` imports that provider alone.

    Names joined by ``+`` are found, too, but not listed.
    """

    def __init__(self, catalog: Catalog, without: frozenset[str]) -> None:
        self._catalog, self._without = catalog, without
        self._known: dict[str | None, dict[str, LoadedBackbone]] = {}

    def __getitem__(self, name: str) -> LoadedBackbone:
        if PLUS in name and name not in self._without:
            return ensemble([self[member] for member in name.split(PLUS)])
        return self._of(name.partition("/")[0])[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of(None))

    def __len__(self) -> int:
        return len(self._of(None))

    def _of(self, provider: str | None) -> dict[str, LoadedBackbone]:
        if provider not in self._known:
            offered = (each for loaded in self._catalog.load("backbones", provider) for each in loaded.backbones)
            self._known[provider] = {each.card.name: each for each in offered if each.card.name not in self._without}
        return self._known[provider]


class _Strategies(Mapping[str, LoadedStrategy]):
    """Name -> strategy with its default options. Asking for one imports that one alone."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __getitem__(self, name: str) -> LoadedStrategy:
        return self._of(name)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of(None))

    def __len__(self) -> int:
        return len(self._of(None))

    def _of(self, name: str | None) -> dict[str, LoadedStrategy]:
        loaded = self._catalog.load("strategy", name)
        return {each.strategy.name: each.strategy for each in loaded if each.strategy}
