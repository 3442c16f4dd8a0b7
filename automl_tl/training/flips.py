"""May images be mirrored? Measured, not guessed: a 2 is no 2 in the mirror, an ant is still an ant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from automl_tl.models.engines import Engine, blocks_digest
from automl_tl.models.features import BATCH_SIZE, load_pixels
from automl_tl.runtime.batches import batches, in_order
from automl_tl.training.heads import head_of
from automl_tl.training.images import LabeledImages
from automl_tl.training.inputs import Prefix
from automl_tl.training.solve import Solution

__all__ = ["flips_are_safe"]

MOST_IMAGES: Final = 128
TOLERATED_DROP: Final = 0.05  # of accuracy, mirrored training images against images out of fold; DECISIONS 9


def flips_are_safe(encoder: Prefix, images: LabeledImages, solution: Solution, *, seed: int) -> bool:
    """Whether mirrored images are recognized about as well as others, by a head that saw none of them mirrored."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(images))[:MOST_IMAGES])
    sample = images.at(rows.tolist())
    features = encoder.cache.rows(
        sample,
        [blocks_digest(encoder.blocks), encoder.preprocessing.model_dump_json(), "mirrored"],
        lambda missing: _mirrored(encoder, missing, encoder.engine(len(sample))),
        description="looking at mirrored images",
    )
    with torch.no_grad():
        said = head_of(solution)(torch.from_numpy(features.all())).argmax(dim=1).numpy()
    as_they_are = float((solution.out_of_fold.argmax(axis=1) == images.labels).mean())
    return float((said == sample.labels).mean()) >= as_they_are - TOLERATED_DROP


def _mirrored(encoder: Prefix, images: LabeledImages, engine: Engine) -> Iterator[NDArray[np.float32]]:
    paths = [record.path for record in images.records]
    pixels = in_order(paths, lambda path: load_pixels(images.read(path), encoder.preprocessing)[:, ::-1])
    for few in batches(pixels, BATCH_SIZE):
        yield engine(np.stack(few))
