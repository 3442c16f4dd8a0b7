"""Progress of a long task: information, warnings and progress bars. Results are rendered elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the number of items completed since the last call; thread-safe."""

_log = logging.getLogger("automl_tl")
_log.addHandler(logging.NullHandler())  # without a handler of the program's own, Python would print warnings


class Progress(Protocol):
    """Where a task reports to."""

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


class Logged:
    """Lines go to the logger ``automl_tl``, which the command line prints on stderr; there are no bars."""

    def info(self, text: str) -> None:
        """Log one line."""
        _log.info("%s", text)

    def warn(self, text: str) -> None:
        """Log one warning."""
        _log.warning("%s", text)

    def track(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Show nothing."""
        return nullcontext(lambda done: None)


QUIET: Progress = Logged()
"""What every function of the Python API uses unless it is given another one: nothing is printed."""
