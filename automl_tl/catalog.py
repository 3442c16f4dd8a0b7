"""Entry points -> Catalog: finds what is installed, checks it, fences in what is broken, explains.

Ours are found in the same way as anybody's. Discovery reads metadata alone; a plugin's module is imported when the plugin
is asked for (or listed), and whatever it raises, then or later, becomes a row or an error that names the plugin.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final, Literal

from pydantic import ValidationError

from automl_tl.contracts import CONTRACT_VERSION, Backbone, BackboneCard, Expectation, Recipe, Situation, Strategy
from automl_tl.errors import AutomlTlError, PluginFailedError, UnknownBackboneError, UnknownStrategyError
from automl_tl.values import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

__all__ = ["Catalog", "Offer", "OfferedBackbone", "OfferedStrategy", "discover"]

HOST: Final = "automl-tl"
GROUPS: Final[dict[str, Literal["backbones", "strategy"]]] = {
    "automl_tl.backbones": "backbones",
    "automl_tl.strategies": "strategy",
}
CONTRACT_GROUP: Final = "automl_tl.contract"


class Offer(Value):
    """One entry point: what an installed distribution says that it offers."""

    kind: Literal["backbones", "strategy"]
    name: str
    distribution: str
    version: str
    entry_point: str
    problem: str | None = None

    @contextmanager
    def fence(self, doing: str) -> Iterator[None]:
        """Turn whatever the plugin raises into an error that names it. Our own errors pass."""
        try:
            yield
        except AutomlTlError:
            raise
        except Exception as error:
            raise PluginFailedError(
                plugin=self.name,
                distribution=f"{self.distribution} {self.version}",
                entry_point=self.entry_point,
                doing=doing,
                problem=f"{type(error).__name__}: {error}",
            ) from error


class OfferedBackbone:
    """A backbone behind its fence."""

    def __init__(self, offer: Offer, backbone: Backbone) -> None:
        self.offer, self._backbone = offer, backbone
        self.card: BackboneCard = backbone.card

    def build(self, *, pretrained: bool) -> nn.Module:
        """See ``Backbone.build``."""
        with self.offer.fence(f"building {self.card.name}"):
            return self._backbone.build(pretrained=pretrained)

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """See ``Backbone.cut``."""
        with self.offer.fence(f"cutting {self.card.name} into blocks"):
            return self._backbone.cut(network)

    def classifier(self, network: nn.Module) -> nn.Module | None:
        """See ``Backbone.classifier``."""
        with self.offer.fence(f"taking the classifier of {self.card.name}"):
            return self._backbone.classifier(network)


class OfferedStrategy:
    """A strategy with its options, behind its fence; every answer is checked again."""

    def __init__(self, offer: Offer, strategy: Strategy) -> None:
        self.offer, self.strategy = offer, strategy
        self.name = offer.name

    @property
    def options(self) -> dict[str, object]:
        """The options as JSON data."""
        return self.strategy.model_dump(mode="json")

    def recipe(self, situation: Situation) -> Recipe:
        """See ``Strategy.recipe``; blocks that don't exist are refused."""
        with self.offer.fence("writing its recipe"):
            recipe = Recipe.model_validate(self.strategy.recipe(situation).model_dump())
            _check_recipe(recipe, situation.num_blocks)
        return recipe

    def expect(self, situation: Situation) -> Expectation:
        """See ``Strategy.expect``."""
        with self.offer.fence("saying what it expects"):
            return Expectation.model_validate(self.strategy.expect(situation).model_dump())


def _check_recipe(recipe: Recipe, num_blocks: int) -> None:
    for phase in recipe.phases:
        beyond = [index for index in phase.train_blocks if not 0 <= index < num_blocks]
        if beyond:
            raise ValueError(f"phase {phase.name!r} trains blocks {beyond}, but there are blocks 0 to {num_blocks - 1} only")
    if not recipe.phases and recipe.head.solver is None:
        raise ValueError("a recipe without phases needs a head with a solver, else nothing learns")


class Catalog:
    """What is installed, by name. Plugins are imported when they are first needed."""

    def __init__(self, found: Iterable[tuple[Offer, EntryPoint]]) -> None:
        self._found = tuple(found)

    @cached_property
    def _loaded(self) -> tuple[tuple[Offer, object], ...]:
        return tuple(_load(offer, entry_point) for offer, entry_point in self._found)

    @property
    def offers(self) -> tuple[Offer, ...]:
        """Every entry point, those left out with their problem. Imports the plugins."""
        return tuple(offer for offer, _ in self._loaded)

    @cached_property
    def backbones(self) -> Mapping[str, OfferedBackbone]:
        """Name -> backbone, of all providers that are sound."""
        return {
            backbone.card.name: OfferedBackbone(offer, backbone)
            for offer, loaded in self._loaded
            if offer.kind == "backbones" and isinstance(loaded, tuple)
            for backbone in loaded
        }

    @cached_property
    def strategies(self) -> Mapping[str, OfferedStrategy]:
        """Name -> strategy with its default options."""
        return {
            offer.name: OfferedStrategy(offer, loaded())
            for offer, loaded in self._loaded
            if isinstance(loaded, type) and issubclass(loaded, Strategy)
        }

    def backbone(self, name: str) -> OfferedBackbone:
        """The backbone called ``provider/model``.

        Raises:
            UnknownBackboneError: nobody offers it; near names are suggested.
        """
        if name not in self.backbones:
            raise UnknownBackboneError(name, tuple(self.backbones))
        return self.backbones[name]

    def strategy(self, name: str, options: Mapping[str, object] | None = None) -> OfferedStrategy:
        """The strategy called ``name``, with ``options`` in place of its defaults.

        Raises:
            UnknownStrategyError: nobody offers it; near names are suggested.
            PluginFailedError: it doesn't take these options.
        """
        if name not in self.strategies:
            raise UnknownStrategyError(name, tuple(self.strategies))
        offered = self.strategies[name]
        with offered.offer.fence(f"taking the options {dict(options or {})}"):
            return OfferedStrategy(offered.offer, type(offered.strategy)(**(options or {})))


def discover(*, only_host: bool = False) -> Catalog:
    """Catalog of the installed entry points.

    ``TL_DISABLE_PLUGINS`` (names of entry points or distributions, separated by commas) leaves plugins out, ``only_host``
    all but ours. Of two plugins with one name ours stays; if neither is ours, both are left out.
    """
    disabled = {name.strip() for name in os.environ.get("TL_DISABLE_PLUGINS", "").split(",") if name.strip()}
    found = []
    for group, kind in GROUPS.items():
        points = [point for point in sorted(entry_points(group=group), key=_origin) if not disabled & set(_origin(point))]
        points = [point for point in points if not only_host or _origin(point)[0] == HOST]
        names = Counter(point.name for point in points)
        for point in points:
            problem = _contract_problem(point)
            if names[point.name] > 1 and _origin(point)[0] != HOST:
                others = sorted({_origin(other)[0] for other in points if other.name == point.name} - {_origin(point)[0]})
                problem = f"the name {point.name!r} is also offered by {', '.join(others)}"
            found.append((_offer(kind, point, problem), point))
    return Catalog(found)


def _origin(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name if point.dist else "unknown", point.name)


def _offer(kind: Literal["backbones", "strategy"], point: EntryPoint, problem: str | None) -> Offer:
    version = point.dist.version if point.dist else "unknown"
    return Offer(
        kind=kind,
        name=point.name,
        distribution=_origin(point)[0],
        version=version,
        entry_point=point.value,
        problem=problem,
    )


def _contract_problem(point: EntryPoint) -> str | None:
    declared = [] if point.dist is None else [p.value for p in point.dist.entry_points if p.group == CONTRACT_GROUP]
    expected = f"v{CONTRACT_VERSION}"
    if declared == [expected]:
        return None
    said = f"is written for contract {', '.join(declared)}" if declared else "declares no contract version"
    return f'it {said}; expected is {expected} (in pyproject: [project.entry-points."{CONTRACT_GROUP}"] version = "{expected}")'


def _load(offer: Offer, point: EntryPoint) -> tuple[Offer, object]:
    if offer.problem:
        return offer, None
    accept: Callable[[object], object] = _accept_backbones if offer.kind == "backbones" else _accept_strategy
    try:
        with offer.fence("being loaded"):
            return offer, accept(point.load())
    except PluginFailedError as error:
        return offer.model_copy(update={"problem": error.problem}), None


def _accept_backbones(loaded: object) -> tuple[Backbone, ...]:
    if not callable(loaded):
        raise TypeError(f"expected a function that gives Backbones, found {type(loaded).__name__}")
    backbones = tuple(loaded())
    wrong = [backbone for backbone in backbones if not isinstance(backbone, Backbone)]
    if wrong:
        raise TypeError(f"expected Backbones, found {type(wrong[0]).__name__}")
    for backbone in backbones:
        if not isinstance(backbone.card, BackboneCard):
            raise TypeError(f"expected a BackboneCard as card, found {type(backbone.card).__name__}")
    return backbones


def _accept_strategy(loaded: object) -> type[Strategy]:
    if not (isinstance(loaded, type) and issubclass(loaded, Strategy)):
        raise TypeError(f"expected a class that is a child of Strategy, found {loaded!r}")
    try:
        loaded()
    except ValidationError as error:
        raise TypeError(f"every option needs a default: {error}") from error
    return loaded
