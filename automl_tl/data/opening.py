"""Recognises what a path is and opens it as a source."""

from __future__ import annotations

from pathlib import Path

from automl_tl.data.folders import FolderSource
from automl_tl.data.source import Source
from automl_tl.errors import NoImagesError, SourceNotFoundError

__all__ = ["open_source"]


def open_source(path: Path) -> Source:
    """The source at ``path``; nothing is read beyond what recognises it.

    Raises:
        SourceNotFoundError: nothing is there, or nothing that we know.
        NoImagesError: a folder that is empty or holds images without classes.
    """
    path = Path(path)
    if not path.exists():
        raise SourceNotFoundError(path)
    if path.is_dir():
        return _open_folder(path)
    raise SourceNotFoundError(path)


def _open_folder(path: Path) -> Source:
    source = FolderSource(path)
    if not source.class_names():
        raise NoImagesError(path, "no folder")
    return source
