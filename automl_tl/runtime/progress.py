"""Progress of a long task: information, warnings and progress bars. Results are rendered elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the number of items completed since the last call; thread-safe."""


class Progress(Protocol):
    """Where a task reports to: stderr for the command line, nowhere for the Python API."""

    def info(self, text: str) -> None:
        """Report one line about what was read or is running."""

    def warn(self, text: str) -> None:
        """Report one line that the user should not miss."""

    def track(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Show a progress bar while the context is open.

        Args:
            description: such as "predicting".
            total: number of items.
        """


class _Quiet:
    def info(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def track(self, description: str, total: int) -> AbstractContextManager[Advance]:
        return nullcontext(lambda done: None)


QUIET: Progress = _Quiet()
