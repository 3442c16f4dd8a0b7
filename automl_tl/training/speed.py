"""How fast this machine runs a backbone: measured once per network in a second or two, kept, and read again by later plans.

What was measured is kept so that the same images get the same plan tomorrow. What was measured on a busy machine is measured
again by the next command that finds it less busy.
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
BUSY: Final = 1.0  # load by core above which a measurement is not trusted for long
NUM_LATENCIES: Final = 8
STARTED_S: Final = time.time()
STEP_IMAGES: Final = 8  # of the step that is timed; more tell little and cost seconds on a CPU


class _Kept(Value):
    """What is kept of a measurement."""

    load: float = Field(default=0.0, description="of the machine by its number of cores, when this was measured")


Kept = TypeVar("Kept", bound=_Kept)


class Speed(_Kept):
    """Seconds per image with many images, and milliseconds for one alone."""

    load_s: float = Field(description="read, decode and resize, on all cores")
    forward_s: float = Field(description="through the encoder, in the engine that features come from")
    latency_ms: float = Field(description="one image through the encoder, in torch as it is")


class TrainingSpeed(_Kept):
    """Seconds per image and block in torch, forward and, where the block learns, forward and backward."""

    forward_s: tuple[float, ...]
    step_s: tuple[float, ...]
    activations_mib: tuple[float, ...] = Field(description="kept per image for the backward pass")


def forward_speed(
    encoder: nn.Sequential, preprocessing: Preprocessing, images: LabeledImages, *, cache_dir: Path, progress: Progress
) -> Speed:
    """Speed of ``encoder`` on ``images``, by the first few of them."""

    def measure() -> Speed:
        _pixels(images, preprocessing, 0)  # the first decoding of a process is slower than any other
        began_s = time.perf_counter()
        pixels = _pixels(images, preprocessing, NUM_TIMED)
        load_s = (time.perf_counter() - began_s) / len(pixels)
        engine = fastest_engine(encoder, preprocessing, cache_dir=cache_dir, num_images=len(images), progress=progress)
        return Speed(
            load_s=load_s,
            forward_s=_seconds(lambda: engine(pixels), NUM_REPEATS) / len(pixels),
            latency_ms=latency_ms(encoder, preprocessing),
        )

    return _kept(Speed, _file(cache_dir, encoder, preprocessing, "forward"), measure)


def latency_ms(encoder: nn.Sequential, preprocessing: Preprocessing) -> float:
    """Milliseconds that one image takes in torch as it is, whatever the weights."""
    engine = EagerEngine(encoder, preprocessing)
    pixels = np.full((1, preprocessing.side_px, preprocessing.side_px, 3), 128, np.uint8)
    return 1000 * _seconds(lambda: engine(pixels), NUM_LATENCIES)


def _pixels(images: LabeledImages, preprocessing: Preprocessing, start: int) -> NDArray[np.uint8]:
    paths = [record.path for record in images.records[start : start + NUM_TIMED] or images.records[:NUM_TIMED]]
    return np.stack(list(in_order(paths, lambda path: load_pixels(images.read(path), preprocessing))))


def training_speed(encoder: nn.Sequential, preprocessing: Preprocessing, *, cache_dir: Path) -> TrainingSpeed:
    """Speed of a training step, block by block."""

    def measure() -> TrainingSpeed:
        keep_freed_memory()  # as training does
        device = best_device()
        normalize = NormalizePlanes(preprocessing).to(device)
        network = encoder.to(device=device, memory_format=layout_on(device))  # type: ignore[call-overload]
        pixels = torch.full((STEP_IMAGES, 3, preprocessing.side_px, preprocessing.side_px), 128.0, device=device)
        with torch.no_grad():
            at_block = [normalize(pixels).contiguous(memory_format=layout_on(device))]
            for block in network:
                at_block.append(block(at_block[-1]))
        forwards, steps, sizes = [], [], []
        for block, given in zip(network, at_block[:-1], strict=True):
            forwards.append(_seconds(lambda b=block, x=given: _forward(b, x), NUM_REPEATS) / STEP_IMAGES)  # type: ignore[misc]
            steps.append(_seconds(lambda b=block, x=given: _step(b, x), NUM_REPEATS) / STEP_IMAGES)  # type: ignore[misc]
            sizes.append(_activations_mib(block, given))
        encoder.cpu().zero_grad(set_to_none=True)
        return TrainingSpeed(forward_s=tuple(forwards), step_s=tuple(steps), activations_mib=tuple(sizes))

    return _kept(TrainingSpeed, _file(cache_dir, encoder, preprocessing, "training"), measure)


def _seconds(act: Callable[[], object], repeats: int) -> float:
    """Least seconds of ``act``, the run that others on the machine disturbed least; once before, it warms up."""
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
def _forward(block: nn.Module, given: Tensor) -> None:
    block(given)


def _step(block: nn.Module, given: Tensor) -> None:
    output = block(given.clone().requires_grad_())
    output.backward(torch.ones_like(output))


def _activations_mib(block: nn.Module, given: Tensor) -> float:
    """Of all that the block's layers give, for one image."""
    total = 0

    def count(_layer: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        total += output.numel() * output.element_size() if isinstance(output, Tensor) else 0

    leaves = [layer for layer in block.modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(count) for layer in leaves]
    _forward(block, given[:1])
    for handle in handles:
        handle.remove()
    return total / 2**20


def _file(cache_dir: Path, encoder: nn.Sequential, preprocessing: Preprocessing, what: str) -> Path:
    machine = f"{best_device()} {torch.get_num_threads()} {torch.__version__}"
    parts = f"{blocks_digest(encoder)} {preprocessing.model_dump_json()} {machine}"
    return cache_dir / "speed" / f"{hashlib.sha256(parts.encode()).hexdigest()}.{what}.json"


def _kept(kind: type[Kept], file: Path, measure: Callable[[], Kept]) -> Kept:
    """What was measured before, unless the machine was busy then and is less so now; what this process measured always."""
    load = _load()
    try:
        kept = kind.model_validate_json(file.read_bytes())
        if kept.load <= max(BUSY, load) or file.stat().st_mtime >= STARTED_S:
            return kept
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
