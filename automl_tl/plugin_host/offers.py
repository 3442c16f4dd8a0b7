"""What an installed distribution says that it offers, and the fence around its code."""

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

__all__ = ["HOST", "Entry", "Kind", "Offer", "cause", "normal"]

Kind = Literal["backbones", "strategy"]
HOST: Final = "automl-tl"


class Offer(Value):
    """One entry point. ``problem`` says why it is left out; without one it takes part."""

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
        """It comes with automl-tl."""
        return normal(self.distribution) == HOST

    @property
    def is_sound(self) -> bool:
        """Nothing is known against using it."""
        return self.problem is None and not self.switched_off

    def failed(self, description: str, problem: str) -> PluginFailedError:
        """The error that names this plugin."""
        return PluginFailedError(
            plugin=self.name,
            distribution=f"{self.distribution} {self.version}",
            entry_point=self.entry_point,
            description=description,
            problem=problem,
        )

    @contextmanager
    def fence(self, description: str) -> Iterator[None]:
        """Turn whatever the plugin raises into an error that names it. Our own errors and the user's Ctrl-C pass.

        What the plugin prints goes to stderr: stdout is the result of a command, perhaps JSON.
        """
        try:
            with redirect_stdout(sys.stderr):
                yield
        except (AutomlTlError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # a plugin may call sys.exit, or raise what is no Exception
            raise self.failed(description, cause(error)) from error


@dataclass(frozen=True)
class Entry:
    """An offer with the entry point that it was read from; nothing is imported yet."""

    offer: Offer
    point: EntryPoint


def cause(error: BaseException) -> str:
    """``Type: text`` in one line, with what to do where that is known."""
    if isinstance(error, ValidationError):
        wrong = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return f"{error.title} is not valid: {'; '.join(wrong)}"
    text = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{text}. Install what offers the module {error.name.partition('.')[0]!r}, or reinstall the plugin"
    return text


def normal(distribution_name: str) -> str:
    """As package indexes compare names: ``Some_Name`` is ``some-name``."""
    return re.sub(r"[-_.]+", "-", distribution_name).lower()
