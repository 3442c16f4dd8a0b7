"""What a source of images is: entries, and the bytes behind each. Nothing here decodes images."""

from __future__ import annotations

import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Final
from weakref import finalize

from automl_tl.values import SplitName

HAS_CHANGE_TIME: Final = os.name != "nt"  # Windows gives the time of creation in its place
CLOCK_TICK_S: Final = 2.0  # a file written this moment may be written again without its times changing (FAT counts in 2 s)

# Common names of the splits, in lower case; those of the `datasets` library, in which "eval" is a name for test.
SPLIT_NAMES: Final[dict[str, SplitName]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "holdout"), "test"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a source, a row of a table or a member of an archive.

    An image to read has a ``label`` and is neither ``ignored`` nor ``rejected``. Both are stable codes: ignored files are
    only counted; a rejected file gets a row in the report, with ``detail``.
    """

    path: str
    label: str | None = None
    split: SplitName | None = None
    group: str | None = None
    ignored: str | None = None
    rejected: str | None = None
    detail: str = ""


class Source(ABC):
    """Labeled images, wherever they are stored. Picklable; ``read`` may be called from many threads."""

    kind: str
    root: Path
    layout: str = ""
    """One sentence that says what was recognized; empty if ``kind`` says it all."""
    url: str = ""
    """Where it was brought from, without credentials; empty for what lies on this machine."""

    @property
    def name(self) -> str:
        """The URL or path, to show and to remember it by."""
        return self.url or in_unicode(str(self.root))

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Every file once, whether used, rejected or ignored. Paths are unique and POSIX."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """The encoded bytes behind ``Entry.path``; an ``OSError`` if they cannot be read (any more)."""

    def class_names(self) -> tuple[str, ...]:
        """Classes that the source names, even those without an image; empty if only its images name them."""
        return ()

    def column(self, name: str) -> dict[str, str] | None:
        """Value of a table's column by path; ``None`` if there is no such column."""
        return None

    def stamp(self, path: str) -> str | None:
        """A string that changes whenever the bytes do, known without reading them; ``None`` if there is none."""
        return None


def in_unicode(text: str) -> str:
    """``text``, with escapes for what is not valid Unicode: of the bytes, if it is the name of a file."""
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()


def split_in_name(name: str) -> SplitName | None:
    """The split that a word of a file name says, such as ``train-00000.tar``."""
    return next((SPLIT_NAMES[word] for word in re.findall("[a-z]+", name.lower()) if word in SPLIT_NAMES), None)


def file_stamp(file: str | Path) -> str | None:
    """Size, times and inode of ``file``; the change time moves with any write, even if the other times are set back.

    ``None`` where there is no change time: copying tools set the other times back, so the file has to be read.
    """
    if not HAS_CHANGE_TIME:
        return None
    try:
        stat = os.stat(file)  # noqa: PTH116 - making a path object takes as long as the call
    except OSError:
        return None
    if time.time() - stat.st_ctime < CLOCK_TICK_S:
        return None
    return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}-{stat.st_ino}"


def temporary_folder(owner: object) -> Path:
    """A new folder that is deleted with ``owner``. Other processes may read it meanwhile, and never delete it."""
    folder = Path(mkdtemp(prefix="automl_tl_"))
    finalize(owner, _remove_folder, folder, os.getpid())
    return folder


def _remove_folder(folder: Path, creator: int) -> None:
    if os.getpid() == creator:  # not in a fork
        shutil.rmtree(folder, ignore_errors=True)
