"""What a source of images is: entries, and the bytes behind each.

The rest of the program sees ``DatasetIndex``; only the scan and the loaders see a ``Source``. Nothing here decodes.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from automl_tl.values import SplitName

__all__ = ["PART_NAMES", "Entry", "Source", "file_stamp", "in_unicode"]

CLOCK_TICK_S: Final = 2.0  # a file written this moment may be written again without its times changing (FAT counts in 2 s)

PART_NAMES: Final[dict[str, SplitName]] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""How people name the parts, in lower case."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file (or one row, or one member) of a source.

    An image to read has a ``label`` and neither ``ignored`` nor ``rejected``. ``ignored`` says why a file is left aside
    with a mere count, ``rejected`` (a stable word, explained by ``detail``) why it gets a row without being read.
    """

    path: str
    label: str | None = None
    split: SplitName | None = None
    group: str | None = None
    ignored: str | None = None
    rejected: str | None = None
    detail: str = ""


class Source(ABC):
    """Images with labels, wherever they are. Picklable; ``read`` may be called from many threads."""

    kind: str
    root: Path

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Every file once, images or not: used, rejected or ignored. Paths are unique and POSIX."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """The encoded bytes behind ``Entry.path``.

        Raises:
            OSError: the bytes can't be had (any more).
        """

    def class_names(self) -> tuple[str, ...]:
        """Classes that the source names, even those without an image; empty if only its images name them."""
        return ()

    def stamp(self, path: str) -> str | None:
        """A text that changes whenever the bytes behind ``path`` do, had without reading them; ``None`` if there is none."""
        return None


def in_unicode(text: str) -> str:
    """``text``, with escapes for what is no valid Unicode."""
    return text.encode(errors="backslashreplace").decode()


def file_stamp(file: str | Path) -> str | None:
    """Size, times and inode of ``file``: the change time moves with any write, whoever sets the others back."""
    try:
        found = os.stat(file)  # noqa: PTH116 - a path object takes as long as the question
    except OSError:
        return None
    if time.time() - found.st_ctime < CLOCK_TICK_S:
        return None
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_ino}"
