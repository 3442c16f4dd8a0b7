"""Labeled images that a Python program gives, instead of a folder or a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, final

from automl_tl.data.sources.source import Entry, Source

Image = TypeVar("Image")


@final
class GivenImages(Source):
    """Images by their position; equal ones are found like any other duplicates. Picklable if the images and ``encode`` are."""

    kind = "given_images"
    root = Path("given")

    def __init__(self, images: Sequence[Image], labels: Sequence[str], encode: Callable[[Image], bytes]) -> None:
        """Give ``images`` their ``labels``; ``encode`` returns the bytes of an image file, or raises an ``OSError``."""
        self._images, self._labels, self._encode = images, labels, encode

    def entries(self) -> Iterator[Entry]:
        """Every image once."""
        return (Entry(f"{position:08}", label=label) for position, label in enumerate(self._labels))

    def read(self, path: str) -> bytes:
        """The bytes of the image file."""
        return self._encode(self._images[int(path)])
