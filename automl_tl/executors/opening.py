"""Finds the executor that ``--on`` names: an entry point, ``NAME://ADDRESS``, or a section of the configuration file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from automl_tl.contracts import Executor
from automl_tl.errors import ExecutorError
from automl_tl.executors.local import LocalExecutor
from automl_tl.plugin_host import discover
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.paths import executors_file
from automl_tl.runtime.progress import QUIET, Progress

# A cluster starts, its workers import torch and compile the network, and it ends: about ten times as long as importing torch
# took here, which also measures how busy the machine is. At least half of the budget is left for the work (decision 63).
STARTS: Final = 20
STARTUP_S: Final = 2.0  # if importing torch was not timed


@contextmanager
def open_executor(on: str | None, deadline: Deadline | None = None, progress: Progress = QUIET) -> Iterator[Executor]:
    """Open an executor; its work ends with the context.

    Args:
        on: as typed after ``--on``; ``None``: this machine.
        deadline: the budget of the work; one that is too short to start workers is spent on this machine.
        progress: receives a warning if it is.

    Raises:
        ExecutorError: there is no such executor, or it cannot be reached.
    """
    if on not in (None, "local") and deadline is not None and deadline.left_s < (needed_s := _needed_s(deadline)):
        progress.warn(
            f"--on {on}: {max(deadline.left_s, 0):.0f} s of the budget are left, and starting workers pays from about "
            f"{needed_s:.0f} s on. This machine does the work, with the same result; raise --budget to use the executor."
        )
        on = None
    executor = LocalExecutor() if on is None else _connect(on)
    try:
        yield executor
    finally:
        executor.close()


def _needed_s(deadline: Deadline) -> float:
    """Seconds of a budget from which on another executor than this machine pays."""
    return STARTS * (deadline.startup_s or STARTUP_S)


def _connect(on: str) -> Executor:
    file = executors_file()
    sections = _read_sections(file)
    settings = dict(sections.get(on, {}))
    target = settings.pop("on", on)
    if not isinstance(target, str):
        raise ExecutorError(f'{file}: [{on}] has on = {target!r}. Expected text, e.g. on = "ray://head:10001".')
    name, separator, address = target.partition("://")
    return discover().executor(name, address if separator else None, settings, also=sections)


def _read_sections(file: Path) -> Mapping[str, Mapping[str, object]]:
    """Settings by name; empty without the file.

    Raises:
        ExecutorError: the file is not TOML with one section per name.
    """
    try:
        sections = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ExecutorError(
            f'{file} cannot be read: {error}. Expected TOML, e.g. [farm] with on = "ray://head:10001".'
        ) from error
    if flat := [name for name, settings in sections.items() if not isinstance(settings, dict)]:
        raise ExecutorError(f"{file}: {', '.join(flat)} is outside of a section. Expected sections, e.g. [farm].")
    return sections
