"""Folders of images on disk, read by their layout; see ``layout``.

The label is the first folder below a split folder (or below the root); images deeper inside belong to it too. Links are
followed only where they lead out of the source: no loops, no accidental labels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import final

from automl_tl.data.image_formats import HEAD_BYTES
from automl_tl.data.sources.layout import Layout, has_surrogates, ignore_reason
from automl_tl.data.sources.source import Entry, Source, file_stamp


@final
class FolderSource(Source):
    """Class folders, or split folders of class folders."""

    def __init__(self, root: Path, layout: Layout) -> None:
        self.root = root
        self._real_root = Path(os.path.realpath(root))
        self._layout = layout
        self.kind, self.layout = layout.kind, layout.words

    def entries(self) -> Iterator[Entry]:
        """Every file below the root, hidden ones and links included."""
        yield from self._walk("", {self._real_root}, None)

    def read(self, path: str) -> bytes:
        """The bytes of the file."""
        with open(f"{self.root}/{path}", "rb") as file:  # noqa: PTH123 - see _walk
            return file.read()

    def stamp(self, path: str) -> str | None:
        """Size, times and inode of the file."""
        return file_stamp(f"{self.root}/{path}")

    def class_names(self) -> tuple[str, ...]:
        """Names of all class folders."""
        return self._layout.classes

    # Paths are strings here: for 100,000 files, path objects would take twice the time of everything else in this walk.
    def _walk(self, folder: str, parents: set[Path], ignored_folder: str | None) -> Iterator[Entry]:
        try:
            with os.scandir(self.root / folder) as items:
                for item in items:
                    path = f"{folder}/{item.name}" if folder else item.name
                    ignored = ignored_folder or ignore_reason(item.name)
                    if has_surrogates(item.name):
                        readable = os.fsencode(path).decode("utf-8", "backslashreplace")
                        yield Entry(readable, rejected="name_not_unicode", detail="its name is not valid UTF-8; rename it")
                    elif item.is_dir(follow_symlinks=False):
                        real = Path(os.path.realpath(item.path))
                        if real in parents:  # a junction of Windows, which is not a symbolic link
                            yield self._layout.place(path, "link_to_folder", "a link to a folder that it is in; not followed")
                        else:
                            yield from self._walk(path, parents | {real}, ignored)
                    elif item.is_symlink() and not ignored:
                        yield from self._follow(path, Path(item.path), parents)
                    elif ignored:
                        yield Entry(path, ignored=ignored)
                    else:
                        yield self._place_file(path, is_file=item.is_file())
        except OSError as error:
            yield self._layout.place(folder, "unreadable", f"cannot list the folder: {error.strerror}")

    def _follow(self, path: str, link: Path, parents: set[Path]) -> Iterator[Entry]:
        target = Path(os.path.realpath(link))
        try:
            link.stat()
        except OSError as error:
            yield self._layout.place(path, "dangling_link", f"a link to {link.readlink()}: {error.strerror}")
            return
        if not link.is_dir():
            yield self._place_file(path, is_file=link.is_file())
        elif target.is_relative_to(self._real_root) or self._real_root.is_relative_to(target) or target in parents:
            detail = f"a link to the folder {link.readlink()} of the same source; not followed"
            yield self._layout.place(path, "link_to_folder", detail)
        else:
            yield from self._walk(path, parents | {target}, None)

    def _place_file(self, path: str, *, is_file: bool) -> Entry:
        if not is_file:
            return self._layout.place(path, "special_file", "neither a file nor a folder (a pipe, socket or device)")

        def read_head() -> bytes:
            with (self.root / path).open("rb") as file:
                return file.read(HEAD_BYTES)

        return self._layout.place_file(path, read_head)
