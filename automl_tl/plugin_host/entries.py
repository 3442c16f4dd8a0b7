"""Plugin entries read from package metadata, and the error boundary around plugin code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Final, Literal

from pydantic import ValidationError

from automl_tl.errors import AutomlTlError, PluginFailedError
from automl_tl.values import Value

__all__ = ["HOST", "InstalledEntry", "Kind", "PluginEntry", "cause", "normal"]

Kind = Literal["backbones", "strategy"]
HOST: Final = "automl-tl"


class PluginEntry(Value):
    """An installed entry point; ``problem`` states why the plugin is skipped, ``None`` if it is usable."""

    kind: Kind
    name: str
    distribution: str
    version: str
    entry_point: str
    problem: str | None = None
    switched_off: bool = False
    import_s: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether the plugin ships with automl-tl."""
        return normal(self.distribution) == HOST

    @property
    def is_sound(self) -> bool:
        """Whether the plugin is enabled and has no known problem."""
        return self.problem is None and not self.switched_off

    def failed(self, description: str, problem: str) -> PluginFailedError:
        """Create the error that names this plugin.

        Args:
            description: What the plugin was doing, e.g. "being loaded".
            problem: Cause of the failure, in one line.
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
        """Convert any exception of the plugin to an error that names it; our own errors and Ctrl-C pass through.

        Output that the plugin prints goes to stderr, because stdout carries the command's result, possibly JSON.

        Args:
            description: What the plugin is doing, for the error message.

        Raises:
            PluginFailedError: The plugin raised an exception.
        """
        try:
            with redirect_stdout(sys.stderr):
                yield
        except (AutomlTlError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # plugins may call sys.exit or raise a bare BaseException
            raise self.failed(description, cause(error)) from error


@dataclass(frozen=True)
class InstalledEntry:
    """An plugin with the importlib entry point it came from; not imported yet."""

    plugin: PluginEntry
    point: EntryPoint


def cause(error: BaseException) -> str:
    """Return ``Type: message`` on one line, with advice where it is known."""
    if isinstance(error, ValidationError):
        wrong = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return f"{error.title} is not valid: {'; '.join(wrong)}"
    text = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{text}. Install the package that provides the module {error.name.partition('.')[0]!r}, or reinstall the plugin"
    return text


def normal(distribution_name: str) -> str:
    """Normalize a distribution name as package indexes do (PEP 503): ``Some_Name`` becomes ``some-name``."""
    return re.sub(r"[-_.]+", "-", distribution_name).lower()
