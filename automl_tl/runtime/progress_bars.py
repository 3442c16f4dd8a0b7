"""Progress bars in a terminal or a notebook, drawn by rich."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Lock
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from automl_tl.runtime.progress import Advance, Logged

REDRAW_S = 0.1  # rich's own rate in terminals


class ProgressBars(Logged):
    """A bar per task, with the remaining time; lines go to the logger ``automl_tl``. A file or a pipe gets no bars."""

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
        progress = Progress(*columns, console=self._console, transient=True, disable=not self.is_seen)
        task, lock = progress.add_task(description, total=total), Lock()
        with _NotebookDisplay(progress) if self._console.is_jupyter else progress as display:

            def advance(done: int) -> None:
                with lock:
                    progress.advance(task, done)
                    if isinstance(display, _NotebookDisplay):
                        display.redraw()

            yield advance

    @property
    def is_seen(self) -> bool:
        """Whether a person sees a bar; a file does not, even with ``FORCE_COLOR``, which is about colors only."""
        return self._console.is_jupyter or (sys.stderr is not None and sys.stderr.isatty())


class _NotebookDisplay:
    """Draws a bar in one output of the notebook; rich needs ``ipywidgets`` for that and leaves a gap after each bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._ipython = progress, import_module("IPython.display")  # every notebook has it

    def __enter__(self) -> Self:
        self._output = self._ipython.display(self._progress, display_id=True)
        self._drawn_at = time.monotonic()
        return self

    def redraw(self) -> None:
        """Show the present state, at most ten times per second."""
        if time.monotonic() - self._drawn_at >= REDRAW_S:
            self._output.update(self._progress)
            self._drawn_at = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._output.update(self._ipython.HTML(""))
