"""Results on stdout, progress and warnings on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from automl_tl.runtime.progress import Advance

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["ConsoleProgress", "complain", "print_json", "result"]

WIDE_COLUMNS = 240

_stderr = Console(stderr=True, highlight=False, soft_wrap=True)
result = Console(highlight=False)
if not result.is_terminal:  # never truncate in a pipe or a file
    result = Console(highlight=False, width=WIDE_COLUMNS)


class ConsoleProgress:
    """Progress on stderr; without a terminal there are lines but no bars."""

    def info(self, text: str) -> None:
        """Print one line."""
        _stderr.print(escape(text), style="dim")

    def warn(self, text: str) -> None:
        """Print one highlighted line."""
        _stderr.print(f"[yellow]![/] {escape(text)}")

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """Show a progress bar with the remaining time."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        lock = Lock()
        with Progress(*columns, console=_stderr, transient=True, disable=not _stderr.is_terminal) as progress:
            task = progress.add_task(description, total=total)

            def advance(done: int) -> None:
                with lock:
                    progress.advance(task, done)

            yield advance


def complain(text: str) -> None:
    """Print an error on stderr."""
    _stderr.print(f"[bold red]error[/] {escape(text)}")


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, object] | list[dict[str, object]]) -> None:
    """Print ``value`` on stdout as indented JSON."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        text = value.model_dump_json(indent=2)
    else:
        plain = [each.model_dump(mode="json") if isinstance(each, BaseModel) else each for each in value]
        text = json.dumps(value if isinstance(value, dict) else plain, indent=2, ensure_ascii=False)
    result.file.write(text + "\n")
