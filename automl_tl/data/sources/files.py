"""Finds the file that a cell of a table means: by its path, else by its name where only one file has it."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from automl_tl.data.image_formats import has_image_suffix
from automl_tl.data.remote import RemoteFiles, is_url
from automl_tl.data.sources.layout import DiskListing, split_of
from automl_tl.values import SplitName

MAX_CANDIDATES: Final = 3  # in a message
MAX_FILES: Final = 2_000_000  # a table may lie in a home folder


class FoundFile(NamedTuple):
    """Where a file is, relative to the root of the finder, or why it is not there: a code and a detail."""

    path: str
    rejected: str | None = None
    detail: str = ""


class FileFinder:
    """Finds files by what tables call them.

    Tables are written on other machines: with backslashes, with letters in another Unicode form, with bare names or numbers
    where the images are in a folder below. Nothing is guessed: a name that several files have is ambiguous, and a file whose
    path differs by more is missing, with a hint.

    Args:
        list_paths: paths of all files that a name may mean, relative to the root; called when a path is not there as written.
        exists: whether a file is at a path.
        base_url: of the folder of a remote table, to which paths are relative; then no file is looked for.

    A URL is found as it is; ``remote`` knows it by the name that is returned.
    """

    def __init__(self, list_paths: Callable[[], Iterable[str]], exists: Callable[[str], bool], base_url: str = "") -> None:
        self._list_paths, self._exists, self._base_url = list_paths, exists, base_url
        self.remote = RemoteFiles()

    def find(self, cell: str, folder: str = "", split: SplitName | None = None) -> FoundFile:
        """Find a file.

        Args:
            cell: path or name as written; relative to ``folder``.
            folder: of the table, relative to the root; a path may be relative to the root as well.
            split: decides between files of one name, by the names of their folders.

        Returns:
            The path, with ``rejected`` (``missing_file``, ``ambiguous_file``) if it is not that of a file.
        """
        if is_url(url := cell.strip()) or is_url(url := f"{self._base_url}/{_clean(cell, folder)}"):
            return FoundFile(self.remote.add(url))
        path = _clean(cell, folder)
        for written in dict.fromkeys((path, path.strip(), posixpath.join(folder, cell), _clean(cell, ""))):
            if self._exists(written):
                return FoundFile(written)
        candidates = self._candidates(path.strip(), folder)
        if split:  # not an image of another split that has the same name
            splits = {name: set(map(split_of, name.split("/")[:-1])) - {None} for name in candidates}
            candidates = [name for name in candidates if splits[name] <= {split}]
            candidates = [name for name in candidates if splits[name]] or candidates
        if len(candidates) == 1:
            return FoundFile(candidates[0])
        if candidates:
            listed = ", ".join(candidates[:MAX_CANDIDATES]) + (" ..." if len(candidates) > MAX_CANDIDATES else "")
            return FoundFile(path, "ambiguous_file", f"several files have this name ({listed}); write the path")
        return FoundFile(path, "missing_file", "there is no such file" + self._hint(path))

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Paths by themselves and by their last name, with the suffix and without, in one Unicode form."""
        names: defaultdict[str, list[str]] = defaultdict(list)
        for path in islice(self._list_paths(), MAX_FILES):
            normal = unicodedata.normalize("NFC", path)
            stem = posixpath.splitext(normal)[0] if has_image_suffix(normal) else normal
            for key in {normal, stem, f"*/{posixpath.basename(normal)}", f"*/{posixpath.basename(stem)}"}:
                names[key].append(path)
        return dict(names)

    @cached_property
    def _by_lower_case(self) -> dict[str, str]:
        return {path.lower(): path for paths in self._names.values() for path in paths}

    def _candidates(self, path: str, folder: str) -> list[str]:
        normal = unicodedata.normalize("NFC", path)
        if exact := self._names.get(normal):
            return exact
        if posixpath.dirname(normal) != unicodedata.normalize("NFC", folder):
            return []  # it names another folder, which is not there
        below = self._names.get(f"*/{posixpath.basename(normal)}", [])
        return [name for name in below if not folder or name.startswith(f"{folder}/")]

    def _hint(self, path: str) -> str:
        if match := self._by_lower_case.get(path.lower()):
            return f"; {match} differs by case only"
        drive = ", and a path with a drive letter is of another computer" if re.match("(.*/)?[A-Za-z]:/", path) else ""
        same_name = self._names.get(f"*/{unicodedata.normalize('NFC', posixpath.basename(path))}", [])
        return drive + (f"; a file of this name is {same_name[0]}: write paths relative to the table" if same_name else "")


def disk_finder(root: Path, *, by_name: bool = True, remote: RemoteFiles | None = None) -> FileFinder:
    """Make a finder for the files below a folder.

    Args:
        root: the folder.
        by_name: whether a file may be found by its name; otherwise only by its path.
        remote: brings what is a URL.
    """
    finder = FileFinder(DiskListing(root).paths if by_name else tuple, lambda path: os.path.isfile(root / path))  # noqa: PTH113 - no path objects
    finder.remote = remote or finder.remote
    return finder


def remote_finder(table: str, remote: RemoteFiles) -> FileFinder:
    """Make a finder for the rows of a remote table, which hold URLs or paths relative to it.

    Args:
        table: its URL.
        remote: brings the images.
    """
    base = urlsplit(table)._replace(query="", fragment="").geturl() if table.startswith("http") else table
    finder = FileFinder(tuple, lambda path: False, base.rpartition("/")[0])
    finder.remote = remote
    return finder


def _clean(cell: str, folder: str) -> str:
    """The path that ``cell`` means: backslashes are separators, and ``.`` stands for the folder."""
    path = cell.replace("\\", "/").removeprefix("./")
    return posixpath.join(folder, path) if folder else path
