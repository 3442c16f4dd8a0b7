"""Which engine is done first with the images at hand, its building included."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from automl_tl.models.engines.eager import EagerEngine, Engine, Normalize, best_device, blocks_digest
from automl_tl.models.engines.with_compile import CompiledEngine
from automl_tl.models.engines.with_onnxruntime import OnnxRuntimeEngine
from automl_tl.models.engines.with_openvino import OpenVinoEngine
from automl_tl.runtime.progress import Progress
from automl_tl.values import Preprocessing

__all__ = ["ENGINES", "ComparedEngine", "Cost", "EngineKind", "fastest_engine"]

EAGER_S: Final = 0.03  # an image through EfficientNet-Lite0 on two cores; larger networks repay building sooner
TOLERANCE: Final = 1e-3  # of the largest value, on real images: float32 sums in another order differ by about 1e-6
NUM_COMPARED: Final = 4

Build = Callable[[nn.Module, Path, int], Engine]  # network, where its graph is or is to be, side of the images


@dataclass(frozen=True)
class Cost:
    """What an engine costs. Constants, and whether it was built before doesn't count: the same images, the same engine."""

    build_s: float  # once per network
    speedup: float  # over eager

    def seconds(self, num_images: int) -> float:
        """For ``num_images``, building included."""
        return self.build_s + num_images * EAGER_S / self.speedup


@dataclass(frozen=True)
class EngineKind:
    """An engine that can be built on a CPU if ``needs`` is installed."""

    name: str
    needs: tuple[str, ...]
    cost: Cost
    build: Build


# Measured on EfficientNet-Lite0 and two cores: benchmarks/results/engines.md.
ENGINES: Final = (
    EngineKind("openvino", ("openvino",), Cost(build_s=1.0, speedup=6.0), OpenVinoEngine),
    EngineKind("onnxruntime", ("onnxruntime", "onnx", "onnxscript"), Cost(build_s=6.0, speedup=6.0), OnnxRuntimeEngine),
    EngineKind("compile", (), Cost(build_s=35.0, speedup=2.5), CompiledEngine),
)


def fastest_engine(
    blocks: nn.Module, preprocessing: Preprocessing, *, cache_dir: Path, num_images: int, progress: Progress
) -> Engine:
    """The engine that is done first with ``num_images`` images, by the costs above; eager on a GPU and for few images.

    If one can't take the network, the next best does it. What it says is held against eager on the first images; if it
    differs or fails there, eager does it all. One line says so.
    """
    eager = EagerEngine(blocks, preprocessing)
    if best_device().type != "cpu":
        return eager
    digest = f"{blocks_digest(blocks)} {preprocessing.model_dump_json()}"
    for kind, folder in _worth_it(digest, cache_dir / "engines", num_images):
        try:
            quick = kind.build(nn.Sequential(Normalize(preprocessing), blocks).eval(), folder, preprocessing.side_px)
        except Exception as error:  # whatever a converter raises, eager can do the work
            progress.info(f"{kind.name} can't take this network ({type(error).__name__}); going on without it")
        else:
            return ComparedEngine(quick, eager, progress)
    return eager


def _worth_it(digest: str, engines_dir: Path, num_images: int) -> list[tuple[EngineKind, Path]]:
    """Engines that are installed and sooner done than eager, the soonest first, each with its folder."""
    seconds = {}
    for kind in ENGINES:
        folder = engines_dir / hashlib.sha256(f"{kind.name} {digest}".encode()).hexdigest()
        if all(find_spec(package) for package in kind.needs):
            seconds[kind, folder] = kind.cost.seconds(num_images)
    sooner = [each for each, needed_s in seconds.items() if needed_s < num_images * EAGER_S]
    return sorted(sooner, key=lambda each: seconds[each])


class ComparedEngine:
    """An engine that has to agree with eager on the first images that it sees."""

    def __init__(self, quick: Engine, eager: Engine, progress: Progress) -> None:
        self._engine, self._eager, self._progress = quick, eager, progress
        self._compared = False

    @property
    def name(self) -> str:
        """Of the engine that is in use."""
        return self._engine.name

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See ``Engine``."""
        if not self._compared:
            self._compare(images[:NUM_COMPARED])
            self._compared = True
        return self._engine(images)

    def _compare(self, images: NDArray[np.uint8]) -> None:
        expected = self._eager(images)
        try:
            difference = float(np.abs(self._engine(images) - expected).max())
        except Exception as error:  # a network that was taken, but does not run
            self._progress.warn(f"{self._engine.name} failed ({type(error).__name__}); going on with torch")
            self._engine = self._eager
            return
        if not difference <= TOLERANCE * float(np.abs(expected).max()):
            self._progress.warn(f"{self._engine.name} differs from torch by {difference:.2g}; going on with torch")
            self._engine = self._eager
