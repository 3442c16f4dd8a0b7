"""Where commands write: what can't be written is refused before the work, and named if it fails after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

__all__ = ["file_to_write", "folder_to_write", "writing"]


def file_to_write(file: Path | None) -> Path | None:
    """``file``, if one can be written there; a callback of options."""
    if file is not None:
        with writing(file):
            folder = file.absolute().parent
            if file.is_dir():
                raise typer.BadParameter(f"{file} is a folder; name a file")
            if not folder.is_dir():
                raise typer.BadParameter(f"there is no folder {folder}; make it, or name a file in a folder that exists")
            _check_right(file if file.exists() else folder)
    return file


def folder_to_write(folder: Path | None) -> Path | None:
    """``folder``, if it is one or can be made; a callback of options."""
    if folder is not None:
        with writing(folder):
            existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
            if not existing.is_dir():
                raise typer.BadParameter(f"{existing} is a file; name a folder")
            _check_right(existing)
    return folder


def _check_right(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise typer.BadParameter(f"there is no right to write to {path}; name another place")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into wrong usage that names ``path``."""
    try:
        yield
    except OSError as error:
        raise typer.BadParameter(f"{path} can't be written ({error.strerror}); name another place") from error
