"""Speed of a backbone on this machine, measured once and cached, and the number of images that a budget has time for.

Measurements are cached, so that the same images get the same plan tomorrow.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from torch import Tensor, nn

from automl_tl.models import engines
from automl_tl.models.engines import EagerEngine, Normalize, best_device, blocks_digest, layout_on, load_pixels
from automl_tl.plugin_host.levels import unscaled
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.paths import write_whole
from automl_tl.runtime.threads import in_order, keep_freed_memory, num_cores
from automl_tl.training.images import LabeledImages
from automl_tl.training.views import Prefix
from automl_tl.values import Preprocessing, Value

NUM_TIMED: Final = 16
NUM_REPEATS: Final = 2
MAX_TRUSTED_LOAD: Final = 1.0  # load per core above which a measurement is repeated later
STEP_IMAGES: Final = 8  # batch of the timed step; a larger one costs seconds on a CPU and changes little
NUM_TIMED_IMAGES: Final = 256  # their extraction time predicts that of the others


class _Measurement(Value):
    """Base of cached measurements."""

    load: float = Field(default=0.0, description="load of the machine per core during the measurement")


Measurement = TypeVar("Measurement", bound=_Measurement)


class Speed(_Measurement):
    """Inference speed: seconds per image in bulk, and latency of a single image."""

    load_s: float = Field(description="to read, decode and resize an image, on all cores")
    forward_s: float = Field(description="forward pass per image, in the engine for feature extraction")
    latency_ms: float = Field(description="forward pass of one image, in eager PyTorch")

    @property
    def image_s(self) -> float:
        """Seconds per image in bulk: next to an accelerator images are read meanwhile; on a CPU both need the same cores."""
        return self.load_s + self.forward_s if best_device().type == "cpu" else max(self.load_s, self.forward_s)


class TrainingSpeed(_Measurement):
    """Seconds per image and block in PyTorch: forward, and forward plus backward where the block is trained."""

    forward_s: tuple[float, ...]
    step_s: tuple[float, ...]
    activations_mib: tuple[float, ...] = Field(description="stored per image for the backward pass")


def forward_speed(prefix: Prefix, images: LabeledImages) -> Speed:
    """Return the inference speed of an encoder on ``images``, measured or from the cache.

    Args:
        prefix: the whole encoder.
        images: the first ones are read; the number of all decides on the engine.
    """
    prefix = replace(prefix, blocks=unscaled(prefix.blocks))  # the engine that extracts
    blocks, preprocessing = prefix.blocks, prefix.preprocessing

    def read(count: int) -> NDArray[np.uint8]:
        return np.stack(list(in_order(images.paths[:count], lambda path: load_pixels(images.read(path), preprocessing))))

    def measure() -> Speed:
        read(NUM_TIMED)  # warm-up: the first decoding of a process is slower
        started_s = time.perf_counter()
        pixels = read(NUM_TIMED)
        load_s = (time.perf_counter() - started_s) / len(pixels)
        engine = prefix.engine(len(images))
        forward_s = _seconds(lambda: engine(pixels)) / len(pixels)
        latency_ms = engines.latency_ms(EagerEngine(blocks, preprocessing), preprocessing.side_px)
        return Speed(load_s=load_s, forward_s=forward_s, latency_ms=latency_ms)

    file = _file(prefix.cache.folder, blocks, preprocessing, "forward", *images.digests[:NUM_TIMED])
    return _cached(Speed, file, measure)


def training_speed(encoder: nn.Sequential, preprocessing: Preprocessing, *, cache_dir: Path) -> TrainingSpeed:
    """Return the speed of a training step, block by block, measured or from the cache.

    Args:
        encoder: to time.
        preprocessing: gives the size of the images.
        cache_dir: holds earlier measurements.
    """

    def measure() -> TrainingSpeed:
        keep_freed_memory()  # as in training
        device = best_device()
        normalize = Normalize(preprocessing).to(device)
        network = encoder.to(device=device, memory_format=layout_on(device))  # type: ignore[call-overload]
        pixels = torch.full((STEP_IMAGES, 3, preprocessing.side_px, preprocessing.side_px), 128.0, device=device)
        inputs = normalize.planes(pixels).contiguous(memory_format=layout_on(device))
        forwards, steps, sizes = [], [], []
        for block in network:
            forwards.append(_seconds(lambda b=block, x=inputs: _forward(b, x)) / STEP_IMAGES)  # type: ignore[misc]
            steps.append(_seconds(lambda b=block, x=inputs: _step(b, x)) / STEP_IMAGES)  # type: ignore[misc]
            sizes.append(_activations_mib(block, inputs))
            inputs = _forward(block, inputs)
        encoder.cpu().zero_grad(set_to_none=True)
        return TrainingSpeed(forward_s=tuple(forwards), step_s=tuple(steps), activations_mib=tuple(sizes))

    return _cached(TrainingSpeed, _file(cache_dir, encoder, preprocessing, "training"), measure)


def _seconds(act: Callable[[], object]) -> float:
    """Minimum seconds of ``act``, after one warm-up call; work queued on an accelerator included."""
    laps = []
    for _ in range(1 + NUM_REPEATS):
        started_s = time.perf_counter()
        act()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        laps.append(time.perf_counter() - started_s)
    return min(laps[1:])


@torch.no_grad()
def _forward(block: nn.Module, inputs: Tensor) -> Tensor:
    output: Tensor = block(inputs)
    return output


def _step(block: nn.Module, inputs: Tensor) -> None:
    output = block(inputs.clone().requires_grad_())
    output.backward(torch.ones_like(output))


def _activations_mib(block: nn.Module, inputs: Tensor) -> float:
    """MiB of the outputs of all layers, for one image."""
    total = 0

    def count(_layer: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        total += output.numel() * output.element_size() if isinstance(output, Tensor) else 0

    handles = [layer.register_forward_hook(count) for layer in block.modules() if not list(layer.children())]
    _forward(block, inputs[:1])
    for handle in handles:
        handle.remove()
    return total / 2**20


def _file(cache_dir: Path, encoder: nn.Sequential, preprocessing: Preprocessing, kind: str, *digests: str) -> Path:
    machine = f"{best_device()} {torch.get_num_threads()} {torch.__version__}"
    key = " ".join([blocks_digest(encoder), preprocessing.model_dump_json(), machine, *digests])
    return cache_dir / "speed" / f"{hashlib.sha256(key.encode()).hexdigest()}.{kind}.json"


def _cached(kind: type[Measurement], file: Path, measure: Callable[[], Measurement]) -> Measurement:
    """The cached measurement; measured again if it was taken under high load and the load is lower now."""
    load = os.getloadavg()[0] / num_cores() if hasattr(os, "getloadavg") else 0.0
    try:
        cached = kind.model_validate_json(file.read_bytes())
        if cached.load <= max(MAX_TRUSTED_LOAD, load):
            return cached
    except (OSError, ValidationError):
        pass
    measured = measure().model_copy(update={"load": round(load, 2)})
    with suppress(OSError):  # measured again next time
        write_whole(file, measured.model_dump_json().encode())
    return measured


def affordable_images(  # noqa: PLR0913 - the terms of one sum of seconds
    images: LabeledImages,
    source: Prefix,
    deadline: Deadline,
    *,
    reserve_s: float,
    per_image_s: float = 0.0,
    num_test: int = 0,
    extraction_s: Callable[[], float] = lambda: 0.0,
) -> LabeledImages:
    """Return the images whose features can be extracted before the deadline, about the same number of each class.

    Which images are taken depends on their content, not on their order.

    Args:
        images: to learn from.
        source: extracts and caches features; cached ones cost nothing.
        deadline: of the command.
        reserve_s: seconds after extraction that do not depend on the number of images.
        per_image_s: seconds after extraction per training image.
        num_test: number of test images whose features must be extracted as well.
        extraction_s: returns the estimated seconds per image, used if there is no time to measure it.
    """
    if deadline.left_s == inf or len(images) <= NUM_TIMED_IMAGES:
        return images
    # 1) Uncached images, class by class in turn.
    missing = set(source.missing(images))
    new = [position for position in np.argsort(images.places_in_class, kind="stable").tolist() if position in missing]
    if not new:
        return images
    timed, num_cached = new[:NUM_TIMED_IMAGES], len(images) - len(new)
    after_s = reserve_s + (num_cached + len(timed)) * per_image_s
    # 2) No time even for the timed images: use the cached ones if they cover all classes.
    needed_s = after_s + (len(timed) + num_test) * extraction_s()
    if deadline.left_s < needed_s and set(np.delete(images.labels, new)) == set(images.labels):
        return images.at(np.setdiff1d(np.arange(len(images)), new))
    if len(new) == len(timed):
        return images
    # 3) Time the extraction, then take as many more images as the deadline allows.
    started_s = deadline.spent_s
    source.plain(images.at(timed))
    image_s = (deadline.spent_s - started_s) / NUM_TIMED_IMAGES
    left_s = deadline.left_s - after_s - num_test * image_s
    num_more = max(0, int(left_s / (image_s + per_image_s)))
    return images.at(np.setdiff1d(np.arange(len(images)), new[NUM_TIMED_IMAGES + num_more :]))
