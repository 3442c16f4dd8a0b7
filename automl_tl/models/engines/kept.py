"""Graphs kept on disk."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

__all__ = ["put_in_place", "ready"]


def ready(folder: Path, fill: Callable[[Path], object]) -> None:
    """See that ``folder`` is there, with what ``fill`` writes if it has to be made, and mark it as in use."""
    if not folder.is_dir():
        put_in_place(folder, fill)
    os.utime(folder)  # what was used longest ago is the first to go when the cache is full


def put_in_place(folder: Path, fill: Callable[[Path], object]) -> None:
    """Make ``folder`` with what ``fill`` writes, whole or not at all; if another process was first, its one stays."""
    draft = folder.with_name(f".{uuid.uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        fill(draft)
        os.rename(draft, folder)  # noqa: PTH104 - two processes may build at once; the first wins
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
