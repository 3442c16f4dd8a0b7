"""From image files to rows of features: decode in threads, run in batches, keep the order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from automl_tl.data.decoding import decode, to_input
from automl_tl.models.engines import Engine
from automl_tl.runtime.batches import batches, in_order
from automl_tl.values import Preprocessing

__all__ = ["BATCH_SIZE", "Read", "embed", "load_pixels"]

BATCH_SIZE = 32
Read = Callable[[str], bytes]


def load_pixels(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Pixels ``(side_px, side_px, 3)``, 0 to 255, of an encoded image.

    Raises:
        UndecodableError: the bytes are no usable image.
    """
    shorter_px = round(preprocessing.side_px / preprocessing.crop_fraction)
    return to_input(decode(data, side_px=shorter_px).image, preprocessing)


def embed(paths: Sequence[str], read: Read, engine: Engine, preprocessing: Preprocessing) -> Iterator[NDArray[np.float32]]:
    """Batches of what ``engine`` makes of the images at ``paths``, in order.

    Raises:
        UndecodableError: an image that the scan could read can't be read any more.
    """
    pixels = in_order(paths, lambda path: load_pixels(read(path), preprocessing))
    for batch in batches(pixels, BATCH_SIZE):
        yield engine(np.stack(batch))
