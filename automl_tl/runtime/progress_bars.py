"""Progress bars in a terminal or a notebook, drawn by rich."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Lock

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from automl_tl.runtime.progress import Advance, Logged


class ProgressBars(Logged):
    """A bar per task, with the remaining time; lines go to the logger ``automl_tl``.

    A file or a pipe gets no bars, and neither does a notebook without ``ipywidgets``, by which rich draws them there.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Draw on ``console``, by default on stderr or in the notebook."""
        self._console = console or Console(stderr=True)

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """Show a bar while the context is open.

        Args:
            description: such as "predicting".
            total: number of items.
        """
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        lock = Lock()
        with Progress(*columns, console=self._console, transient=True, disable=not self.is_seen) as progress:
            task = progress.add_task(description, total=total)

            def advance(done: int) -> None:
                with lock:
                    progress.advance(task, done)

            yield advance

    @property
    def is_seen(self) -> bool:
        """Whether a person sees a bar; a file does not, even with ``FORCE_COLOR``, which is about colors only."""
        if self._console.is_jupyter:
            return find_spec("ipywidgets") is not None
        return sys.stderr is not None and sys.stderr.isatty()
