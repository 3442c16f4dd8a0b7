"""Speed of a backbone on this machine: measured once per network in a second or two, then cached.

Measurements are cached so that the same images get the same plan tomorrow. One taken on a busy machine is repeated by the
next command that runs under less load.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from torch import Tensor, nn

from automl_tl.models import engines
from automl_tl.models.engines import EagerEngine, best_device, blocks_digest, fastest_engine, layout_on
from automl_tl.models.features import load_pixels
from automl_tl.runtime.batches import in_order
from automl_tl.runtime.progress import Progress
from automl_tl.runtime.threads import keep_freed_memory, num_cores
from automl_tl.training.images import LabeledImages
from automl_tl.training.views import NormalizePlanes
from automl_tl.values import Preprocessing, Value

__all__ = ["Speed", "TrainingSpeed", "forward_speed", "latency_ms", "training_speed"]

NUM_TIMED: Final = 16
NUM_REPEATS: Final = 2
MAX_TRUSTED_LOAD: Final = 1.0  # load per core above which a measurement is repeated later
STARTED_S: Final = time.time()
STEP_IMAGES: Final = 8  # batch of the timed step; a larger one costs seconds on a CPU and changes little


class _Measurement(Value):
    """Base of cached measurements."""

    load: float = Field(default=0.0, description="load of the machine per core during the measurement")


Measurement = TypeVar("Measurement", bound=_Measurement)


class Speed(_Measurement):
    """Inference speed: seconds per image in bulk, and latency of a single image."""

    load_s: float = Field(description="to read, decode and resize an image, on all cores")
    forward_s: float = Field(description="forward pass per image, in the engine for feature extraction")
    latency_ms: float = Field(description="forward pass of one image, in eager PyTorch")


class TrainingSpeed(_Measurement):
    """Seconds per image and block in PyTorch: forward, and forward plus backward where the block is trained."""

    forward_s: tuple[float, ...]
    step_s: tuple[float, ...]
    activations_mib: tuple[float, ...] = Field(description="stored per image for the backward pass")


def forward_speed(
    encoder: nn.Sequential, preprocessing: Preprocessing, images: LabeledImages, *, cache_dir: Path, progress: Progress
) -> Speed:
    """Inference speed of ``encoder``, measured on the first images.

    Args:
        encoder: its blocks.
        preprocessing: of the encoder's input.
        images: the first ones are read, the number of all decides on the engine.
        cache_dir: where the measurement is cached.
        progress: for warnings of the engine.
    """

    def measure() -> Speed:
        _pixels(images, preprocessing, 0)  # warm-up: the first decoding of a process is slower
        began_s = time.perf_counter()
        pixels = _pixels(images, preprocessing, NUM_TIMED)
        load_s = (time.perf_counter() - began_s) / len(pixels)
        engine = fastest_engine(encoder, preprocessing, cache_dir=cache_dir, num_images=len(images), progress=progress)
        return Speed(
            load_s=load_s,
            forward_s=_seconds(lambda: engine(pixels), NUM_REPEATS) / len(pixels),
            latency_ms=latency_ms(encoder, preprocessing),
        )

    return _cached(Speed, _file(cache_dir, encoder, preprocessing, "forward"), measure)


def latency_ms(encoder: nn.Sequential, preprocessing: Preprocessing) -> float:
    """Latency of one image in eager PyTorch, in milliseconds; does not depend on the weights."""
    return engines.latency_ms(EagerEngine(encoder, preprocessing), preprocessing.side_px)


def _pixels(images: LabeledImages, preprocessing: Preprocessing, start: int) -> NDArray[np.uint8]:
    paths = [record.path for record in images.records[start : start + NUM_TIMED] or images.records[:NUM_TIMED]]
    return np.stack(list(in_order(paths, lambda path: load_pixels(images.read(path), preprocessing))))


def training_speed(encoder: nn.Sequential, preprocessing: Preprocessing, *, cache_dir: Path) -> TrainingSpeed:
    """Speed of a training step, block by block.

    Args:
        encoder: its blocks.
        preprocessing: of the encoder's input.
        cache_dir: where the measurement is cached.
    """

    def measure() -> TrainingSpeed:
        keep_freed_memory()  # as in training
        device = best_device()
        normalize = NormalizePlanes(preprocessing).to(device)
        network = encoder.to(device=device, memory_format=layout_on(device))  # type: ignore[call-overload]
        pixels = torch.full((STEP_IMAGES, 3, preprocessing.side_px, preprocessing.side_px), 128.0, device=device)
        with torch.no_grad():
            at_block = [normalize(pixels).contiguous(memory_format=layout_on(device))]
            for block in network:
                at_block.append(block(at_block[-1]))
        forwards, steps, sizes = [], [], []
        for block, inputs in zip(network, at_block[:-1], strict=True):
            forwards.append(_seconds(lambda b=block, x=inputs: _forward(b, x), NUM_REPEATS) / STEP_IMAGES)  # type: ignore[misc]
            steps.append(_seconds(lambda b=block, x=inputs: _step(b, x), NUM_REPEATS) / STEP_IMAGES)  # type: ignore[misc]
            sizes.append(_activations_mib(block, inputs))
        encoder.cpu().zero_grad(set_to_none=True)
        return TrainingSpeed(forward_s=tuple(forwards), step_s=tuple(steps), activations_mib=tuple(sizes))

    return _cached(TrainingSpeed, _file(cache_dir, encoder, preprocessing, "training"), measure)


def _seconds(act: Callable[[], object], repeats: int) -> float:
    """Minimum seconds of ``act`` over ``repeats`` calls, after one warm-up call."""
    act()
    laps = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        act()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        laps.append(time.perf_counter() - began_s)
    return min(laps)


@torch.no_grad()
def _forward(block: nn.Module, inputs: Tensor) -> None:
    block(inputs)


def _step(block: nn.Module, inputs: Tensor) -> None:
    output = block(inputs.clone().requires_grad_())
    output.backward(torch.ones_like(output))


def _activations_mib(block: nn.Module, inputs: Tensor) -> float:
    """MiB of the outputs of all layers, for one image."""
    total = 0

    def count(_layer: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        total += output.numel() * output.element_size() if isinstance(output, Tensor) else 0

    leaves = [layer for layer in block.modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(count) for layer in leaves]
    _forward(block, inputs[:1])
    for handle in handles:
        handle.remove()
    return total / 2**20


def _file(cache_dir: Path, encoder: nn.Sequential, preprocessing: Preprocessing, kind: str) -> Path:
    machine = f"{best_device()} {torch.get_num_threads()} {torch.__version__}"
    parts = f"{blocks_digest(encoder)} {preprocessing.model_dump_json()} {machine}"
    return cache_dir / "speed" / f"{hashlib.sha256(parts.encode()).hexdigest()}.{kind}.json"


def _cached(kind: type[Measurement], file: Path, measure: Callable[[], Measurement]) -> Measurement:
    """The cached measurement; measured again if another process took it under high load and the load is lower now."""
    load = _load()
    try:
        cached = kind.model_validate_json(file.read_bytes())
        if cached.load <= max(MAX_TRUSTED_LOAD, load) or file.stat().st_mtime >= STARTED_S:
            return cached
    except (OSError, ValidationError):
        pass
    measured = measure().model_copy(update={"load": round(load, 2)})
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{uuid.uuid4().hex}.draft")
    draft.write_text(measured.model_dump_json())
    draft.rename(file)
    return measured


def _load() -> float:
    return os.getloadavg()[0] / num_cores() if hasattr(os, "getloadavg") else 0.0
