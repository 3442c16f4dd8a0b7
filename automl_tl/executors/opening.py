"""Finds the executor that ``--on`` names: an entry point, ``NAME://ADDRESS``, or a section of the configuration file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from automl_tl.contracts import Executor
from automl_tl.errors import ExecutorError
from automl_tl.executors.local import LocalExecutor
from automl_tl.plugin_host import discover
from automl_tl.runtime.paths import executors_file


@contextmanager
def open_executor(on: str | None) -> Iterator[Executor]:
    """Open an executor; its work ends with the context.

    Args:
        on: as typed after ``--on``; ``None``: this machine.

    Raises:
        ExecutorError: there is no such executor, or it cannot be reached.
    """
    executor = LocalExecutor() if on is None else _connect(on)
    try:
        yield executor
    finally:
        executor.close()


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
