"""What a job does, in the process that an executor started for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Final, cast

from automl_tl.contracts import Answer, Job
from automl_tl.data.workers import scan_files
from automl_tl.errors import AutomlTlError
from automl_tl.runtime.child_processes import END_WITH_PARENT, run_python

MAX_LETTERS: Final = 2000  # of an error, which may quote a traceback


def perform(job: Job) -> Answer:
    """Do a job. Errors are answers, so that the machine that asked can explain them."""
    try:
        return TASKS[job.task](job)
    except Exception as error:  # of any kind: it would be lost with this process
        kind = "" if isinstance(error, AutomlTlError) else f"{type(error).__name__}: "  # ours are whole sentences
        return Answer(error=kind + shorten(str(error), MAX_LETTERS, placeholder=" ..."))


def _run_command(job: Job) -> Answer:
    """Run a command of ``tl`` in a new process with an empty home."""
    command = cast(list[str], job.arguments["command"])
    with TemporaryDirectory(prefix="tl-job-") as home:
        completed = run_python(["-m", "automl_tl", *command], environment={"TL_HOME": home, END_WITH_PARENT: str(os.getpid())})
    return Answer(result={"exit_code": completed.returncode, "stdout": completed.stdout, "stderr": completed.stderr})


def _extract_features(job: Job) -> Answer:
    from automl_tl.training.extraction import extract_features  # imports torch

    return extract_features(job)


def _train_trial(job: Job) -> Answer:
    from automl_tl.training.trials import train_trial  # imports torch

    return train_trial(job)


TASKS: Final[dict[str, Callable[[Job], Answer]]] = {
    "command": _run_command,
    "scan": scan_files,
    "features": _extract_features,
    "trial": _train_trial,
}
