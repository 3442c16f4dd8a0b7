"""The progress that a long task tells while it runs: lines, warnings and progress. The result is told elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

__all__ = ["QUIET", "Advance", "Progress"]

Advance = Callable[[int], None]
"""Called with the number of items done since the last call; thread-safe."""


class Progress(Protocol):
    """Whom to tell. The command line writes to stderr, the Python API is silent."""

    def info(self, text: str) -> None:
        """One line about what was found or is done."""

    def warn(self, text: str) -> None:
        """One line that the user should not miss."""

    def track(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """A progress bar over ``total`` items while the context is open."""


class _Quiet:
    def info(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def track(self, description: str, total: int) -> AbstractContextManager[Advance]:
        return nullcontext(lambda done: None)


QUIET: Progress = _Quiet()
