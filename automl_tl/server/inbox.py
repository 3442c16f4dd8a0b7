"""Corrections from the live page: the original bytes of an image, filed under the class that a person chose."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Final

from automl_tl.runtime.file_names import folder_names
from automl_tl.runtime.paths import write_whole
from automl_tl.runtime.resources import writing_to

MAX_KEPT_BYTES: Final = 128 * 2**20  # of recent images, which a correction can name


class Inbox:
    """A folder of class folders, as ``tl auto fit`` reads it. Files are named by digest and written atomically."""

    def __init__(self, folder: Path) -> None:
        """Create the folder if it is missing."""
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._recent: OrderedDict[str, tuple[bytes, str]] = OrderedDict()
        self._num_bytes = 0
        self._lock = Lock()

    def remember(self, digest: str, data: bytes, suffix: str) -> None:
        """Keep an image in memory for a while, in case a person corrects its label.

        Args:
            digest: sha256 of ``data``, hexadecimal.
            data: the encoded image.
            suffix: of its file, without the dot.
        """
        with self._lock:
            self._num_bytes += len(data) - len(self._recent.pop(digest, (b"", ""))[0])
            self._recent[digest] = (data, suffix)
            while self._num_bytes > MAX_KEPT_BYTES:
                self._num_bytes -= len(self._recent.popitem(last=False)[1][0])

    def file(self, digest: str, label: str, classes: Sequence[str]) -> int:
        """File a recent image under a label, and return the number of images in its folder.

        An image that was filed under another label moves.

        Args:
            digest: of an image that was predicted a moment ago.
            label: the correct class, one of ``classes`` or a new one.
            classes: of the model.

        Raises:
            KeyError: the image is not in memory any more.
            ResourceError: it cannot be written.
        """
        data, suffix = self._recent[digest]
        folder = self._folder / folder_names(list(dict.fromkeys([*classes, label])))[label]
        with self._lock, writing_to(folder):
            folder.mkdir(exist_ok=True)
            target = folder / f"{digest}.{suffix}"
            earlier = [path for path in self._folder.glob(f"*/{digest}.*") if path != target]
            if earlier:
                earlier[0].replace(target)
            elif not target.exists():
                write_whole(target, data)
            return sum(1 for path in folder.iterdir() if not path.name.startswith("."))
