"""Plugins inside an error boundary: the host calls these objects, never those of a plugin."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from pydantic import ValidationError

from automl_tl.contracts import Backbone, BackboneCard, Expectation, Recipe, Situation, Strategy
from automl_tl.errors import AutomlTlError, PluginFailedError
from automl_tl.plugin_host.composition import check_composition
from automl_tl.runtime.resources import explain, is_out_of_memory
from automl_tl.values import Value

if TYPE_CHECKING:
    from torch import Tensor, nn

Kind = Literal["backbones", "strategy", "executor"]
HOST: Final = "automl-tl"
PLUS: Final = "+"  # joins the names of the backbones of an ensemble
LEVELS: Final = ":levels"  # behind the name of a backbone: its multi-level features
Answer = TypeVar("Answer", bound=Value)


class PluginEntry(Value):
    """An installed entry point; ``problem`` states why the plugin is skipped, ``needs`` which optional package it lacks."""

    kind: Kind
    name: str
    distribution: str
    version: str
    entry_point: str
    problem: str | None = None
    needs: str | None = None
    disabled: bool = False
    import_s: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_built_in(self) -> bool:
        """Whether the plugin ships with automl-tl."""
        return normal(self.distribution) == HOST

    @property
    def is_sound(self) -> bool:
        """Whether the plugin is enabled, has no known problem and lacks nothing."""
        return self.problem is None and self.needs is None and not self.disabled

    def import_target(self) -> object:
        """Import the object that the entry point names."""
        return EntryPoint(self.name, self.entry_point, self.kind).load()

    def failed(self, description: str, problem: str) -> PluginFailedError:
        """Return the error that names this plugin, what it was doing (e.g. "being loaded"), and the problem.

        Args:
            description: what the plugin was doing, e.g. "being loaded".
            problem: what went wrong.
        """
        return PluginFailedError(
            plugin=self.name,
            distribution=f"{self.distribution} {self.version}",
            entry_point=self.entry_point,
            description=description,
            problem=problem,
        )

    @contextmanager
    def error_boundary(self, description: str) -> Iterator[None]:
        """Convert any exception of the plugin to ``PluginFailedError``; our own errors, Ctrl-C and full disks pass through.

        Output that the plugin prints goes to stderr, because stdout carries the command's result, possibly JSON.
        """
        try:
            with redirect_stdout(sys.stderr):
                yield
        except (AutomlTlError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # plugins may call sys.exit or raise a bare BaseException
            explained = None if isinstance(error, ImportError) or is_out_of_memory(error) else explain(error)
            raise explained or self.failed(description, _cause(error)) from error


def _cause(error: BaseException) -> str:
    """Return ``Type: message`` on one line, with advice where it is known."""
    if isinstance(error, ValidationError):
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        return f"{error.title} is not valid: {'; '.join(problems)}"
    text = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{text}. Install the package that provides the module {error.name.partition('.')[0]!r}, or reinstall the plugin"
    return text


def normal(distribution_name: str) -> str:
    """Normalize a distribution name as package indexes do (PEP 503): ``Some_Name`` becomes ``some-name``."""
    return re.sub(r"[-_.]+", "-", distribution_name).lower()


class LoadedBackbone:
    """A backbone inside its error boundary; its card is read once."""

    def __init__(self, plugin: PluginEntry, backbone: Backbone) -> None:
        self.plugin, self._backbone = plugin, backbone
        self.card: BackboneCard = backbone.card

    def error_boundary(self, description: str) -> AbstractContextManager[None]:
        """Return the boundary for work with a third-party network, e.g. "was probed"; built-in networks need none."""
        return nullcontext() if self.plugin.is_built_in else self.plugin.error_boundary(f"{self.card.name} {description}")

    def build(self, *, pretrained: bool) -> nn.Module:
        """See ``Backbone.build``."""
        with self.plugin.error_boundary(f"building {self.card.name}"):
            return self._backbone.build(pretrained=pretrained)

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """See ``Backbone.cut``."""
        from torch import nn

        with self.plugin.error_boundary(f"cutting {self.card.name} into blocks"):
            blocks = tuple(self._backbone.cut(network))
            if not blocks:
                raise ValueError("expected at least one block, found none")
            for block in blocks:
                if not isinstance(block, nn.Module):
                    raise TypeError(f"expected an nn.Module as each block, found {type(block).__name__}")
            return blocks

    def blocks(self, network: nn.Module) -> nn.Sequential:
        """Return the blocks of ``network`` as one module in eval mode, compared with the network (``composition``).

        Raises:
            PluginFailedError: the backbone cannot be cut, or its blocks compute something else.
        """
        from torch import nn

        blocks = nn.Sequential(*self.cut(network)).eval()
        with self.plugin.error_boundary(f"comparing {self.card.name} with its blocks"):
            check_composition(self._backbone, f"{self.plugin.distribution} {self.plugin.version}", network, list(blocks))
        return blocks

    def classifier(self, network: nn.Module) -> nn.Module | None:
        """See ``Backbone.classifier``."""
        with self.plugin.error_boundary(f"taking the classifier of {self.card.name}"):
            return self._backbone.classifier(network)

    def read_weights(self, network: nn.Module, file: Path) -> Mapping[str, Tensor] | None:
        """See ``Backbone.read_weights``."""
        with self.plugin.error_boundary(f"reading weights of {self.card.name}"):
            return self._backbone.read_weights(network, file)


class LoadedStrategy:
    """A strategy with its options, inside its error boundary."""

    def __init__(self, plugin: PluginEntry, strategy: Strategy) -> None:
        self.plugin, self.strategy = plugin, strategy
        self.name = plugin.name

    @property
    def options(self) -> dict[str, object]:
        """The options as JSON data."""
        with self.plugin.error_boundary("listing its options"):
            return self.strategy.model_dump(mode="json")

    def recipe(self, situation: Situation) -> Recipe:
        """Return the recipe for ``situation``.

        Raises:
            PluginFailedError: The strategy raised an exception, or its recipe is invalid.
        """
        with self.plugin.error_boundary("writing its recipe"):
            recipe = _validated(Recipe, self.strategy.recipe(situation))
            _check_blocks_exist(recipe, situation.num_blocks)
        return recipe

    def expect(self, situation: Situation) -> Expectation:
        """Return the expectation for ``situation``. Never raises: a strategy that fails in either method does not suit."""
        try:
            with self.plugin.error_boundary("estimating its gain"):
                expectation = _validated(Expectation, self.strategy.expect(situation))
            if expectation.suits:
                self.recipe(situation)
        except AutomlTlError as error:
            return Expectation(suits=False, why=str(error))
        return expectation


def _validated(kind: type[Answer], answer: object) -> Answer:
    """Validate ``answer`` again, since ``model_construct`` skips validation and a wrong recipe trains a wrong model."""
    if not isinstance(answer, kind):
        raise TypeError(f"expected {kind.__name__}, found {type(answer).__name__}")
    return kind.model_validate(answer.model_dump(warnings=False))


def _check_blocks_exist(recipe: Recipe, num_blocks: int) -> None:
    for phase in recipe.phases:
        beyond = [index for index in phase.train_blocks if not 0 <= index < num_blocks]
        if beyond:
            raise ValueError(f"phase {phase.name!r} trains blocks {beyond}, but there are blocks 0 to {num_blocks - 1} only")
    if not recipe.phases and recipe.head.solver is None:
        raise ValueError("a recipe without phases needs a head with a solver; otherwise nothing is trained")
