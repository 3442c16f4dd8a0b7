"""Output paths: an unwritable path is rejected before the work starts, and named if writing fails afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

__all__ = ["file_to_write", "folder_to_write", "writing"]


def file_to_write(file: Path | None) -> Path | None:
    """Validate an output file; a callback of options."""
    if file is not None:
        with writing(file):
            folder = file.absolute().parent
            if file.is_dir():
                raise typer.BadParameter(f"{file} is a folder; expected a file")
            if not folder.is_dir():
                raise typer.BadParameter(f"the folder {folder} does not exist; create it or choose another file")
            _check_right(file if file.exists() else folder)
    return file


def folder_to_write(folder: Path | None) -> Path | None:
    """Validate an output folder; a callback of options."""
    if folder is not None:
        with writing(folder):
            existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
            if not existing.is_dir():
                raise typer.BadParameter(f"{existing} is a file; expected a folder")
            _check_right(existing)
    return folder


def _check_right(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise typer.BadParameter(f"no permission to write to {path}; choose another path")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into a usage error that names ``path``."""
    try:
        yield
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path} ({error.strerror}); choose another path") from error
