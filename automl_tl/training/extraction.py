"""Feature extraction as a job: what a worker does. ``Prefix`` makes these jobs.

The rows equal those that the asking process would compute, bit for bit: the same engine on the same kind of device, for whole
batches of the same images. Whatever a row depends on is part of the cache's key, which both sides compare.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_tl.contracts import Answer, Job
from automl_tl.data.decode import DECODER, quiet_pillow
from automl_tl.data.workers import source_of
from automl_tl.errors import ExecutorError
from automl_tl.models.bundle import build_encoder
from automl_tl.models.engines import BATCH_SIZE, Engine, load_pixels
from automl_tl.plugin_host import discover
from automl_tl.plugin_host.levels import unscaled
from automl_tl.runtime.paths import cache_dir, usable_cache
from automl_tl.runtime.progress import QUIET
from automl_tl.runtime.threads import batches, in_order
from automl_tl.training.views import Prefix
from automl_tl.training.workspace import ActivationCache
from automl_tl.values import Preprocessing

NUM_THREADS = 2  # that decode for one engine


def extract_features(job: Job) -> Answer:
    """Extract the features of the images of a job.

    Raises:
        ExecutorError: this machine would compute other features, or has other images.
    """
    arguments: dict[str, Any] = job.arguments
    source, preprocessing = source_of(job), Preprocessing.model_validate_json(arguments["key"][1])
    engine = _engine(arguments["backbone"], arguments["weights"], tuple(arguments["key"]), arguments["num_images"])

    def load(image: tuple[str, str]) -> NDArray[np.uint8]:
        path, digest = image
        data = source.read(path)
        if sha256(data).hexdigest() != digest:
            raise ExecutorError(
                f"{path} has other bytes on this machine than in the scan. All machines must read the same files."
            )
        return load_pixels(data, preprocessing)

    images = zip(arguments["paths"], arguments["digests"], strict=True)
    with quiet_pillow():
        pixels = batches(in_order(images, load, ahead=2 * BATCH_SIZE, num_threads=NUM_THREADS), BATCH_SIZE)
        rows = np.concatenate([engine(np.stack(batch)) for batch in pixels])
    content = rows.tobytes()
    return Answer(result={"shape": list(rows.shape)}, content=content, digest=sha256(content).hexdigest())


@lru_cache(maxsize=2)
def _engine(backbone: str, weights: str | None, key: tuple[str, ...], num_images: int) -> Engine:
    """The engine for the blocks of a backbone that have the digest in ``key``, kept for the next job of this process."""
    encoder = build_encoder(
        discover().backbone(backbone), pretrained=True, weights_file=None if weights is None else Path(weights)
    )
    cache = ActivationCache(usable_cache(cache_dir()), QUIET)
    prefix = Prefix(unscaled(encoder), Preprocessing.model_validate_json(key[1]), cache, gives_features=True)
    here = (*prefix.key(), DECODER)
    differing = [f"{ours} instead of {theirs}" for ours, theirs in zip(here, key, strict=True) if ours != theirs]
    if differing:
        raise ExecutorError(f"This machine would compute other features of {backbone}: {'; '.join(differing)}")
    return prefix.engine(num_images)
