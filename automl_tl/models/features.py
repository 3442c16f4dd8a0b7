"""Features of image files: decode in threads, run in batches, keep the order."""

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
    """Decode an image and crop and resize it for the network.

    Args:
        data: bytes of an image file.
        preprocessing: of the model.

    Returns:
        Pixels ``(side_px, side_px, 3)``, 0 to 255.

    Raises:
        UndecodableError: the bytes are not a usable image.
    """
    shorter_px = round(preprocessing.side_px / preprocessing.crop_fraction)
    return to_input(decode(data, side_px=shorter_px).image, preprocessing)


def embed(paths: Sequence[str], read: Read, engine: Engine, preprocessing: Preprocessing) -> Iterator[NDArray[np.float32]]:
    """Yield batches of ``engine`` outputs for the images at ``paths``, in order.

    Args:
        paths: of the images.
        read: returns the bytes of a path.
        engine: runs the frozen blocks.
        preprocessing: of the model.

    Raises:
        UndecodableError: an image that the scan could read can't be read any more.
    """
    pixels = in_order(paths, lambda path: load_pixels(read(path), preprocessing))
    for batch in batches(pixels, BATCH_SIZE):
        yield engine(np.stack(batch))
