"""Child processes: how Python is started, so that none of them imports files of the working directory.

A user's ``types.py`` or ``random.py`` would otherwise take the place of the standard library's, and the owner of the folder
would run code. ``PYTHONPATH`` is the user's wish and stays.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Final

END_WITH_PARENT: Final = "TL_END_WITH_PARENT"  # number of the process whose end ends ours
POLL_S: Final = 1.0
SAFE_PATH: Final = "PYTHONSAFEPATH"  # of Python 3.11 and later; processes started by a child inherit it


def run_python(
    arguments: Sequence[str], *, timeout_s: float | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the Python interpreter in a new process, without the working directory on its import path.

    Args:
        arguments: of the interpreter.
        timeout_s: limit in seconds; by default none.
        environment: variables to set beyond those of this process.

    Returns:
        Exit code, standard output and standard error.

    Raises:
        subprocess.TimeoutExpired: the process took longer than ``timeout_s`` and was killed.
    """
    variables = {**os.environ, "PYTHONIOENCODING": "utf-8:backslashreplace", **(environment or {}), SAFE_PATH: "1"}
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        env=variables,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


def end_with_parent() -> None:
    """End this process soon after its parent if the parent asked for that: a killed worker leaves no fit behind."""
    parent = os.environ.pop(END_WITH_PARENT, "")
    if not parent:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(POLL_S)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def safe_import_path() -> Iterator[None]:
    """Keep the working directory off the import path of processes that a library starts meanwhile, such as scan workers."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before
