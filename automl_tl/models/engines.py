"""Engines: what runs frozen blocks, from image files to features or activations.

``EagerEngine`` is plain PyTorch and the reference. ``OpenVinoEngine`` is several times as fast on a CPU; its graph is built
once per network and cached on disk. ONNX Runtime was no faster and torch.compile took 36 s to build (decision 25).
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automl_tl.data.decode import decode, to_input
from automl_tl.runtime.progress import Progress
from automl_tl.runtime.resources import explain
from automl_tl.runtime.threads import batches, in_order
from automl_tl.values import Preprocessing

_log = logging.getLogger(__name__)

BATCH_SIZE: Final = 32
# More images than these repay building a graph: 1 s once, then 0.005 s per image instead of 0.03 s (EfficientNet-Lite0, two
# cores, benchmarks/results/engines.md). The same number of images always gets the same engine, built before or not.
BREAK_EVEN_IMAGES: Final = 40
TOLERANCE: Final = 1e-3  # of the largest value, on real images: float32 sums in another order differ by about 1e-6
NUM_COMPARED: Final = 4
NUM_TIMED: Final = 8
GRAPH_FILE: Final = "graph.xml"
DIGEST_FILE: Final = "sha256"
# float32 throughout: by default a CPU with AMX would silently compute in bfloat16.
OPENVINO_SETTINGS: Final = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}

Read = Callable[[str], bytes]  # the bytes of a path


class Engine(Protocol):
    """Frozen blocks, ready to run."""

    @property
    def name(self) -> str:
        """Name to show to users."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images ``(B, side_px, side_px, 3)``, 0 to 255, to the output of the last block, ``(B, ...)``."""


class Normalize(nn.Module):
    """Bytes ``(B, H, W, 3)`` to normalized float32 ``(B, 3, H, W)``, channels last in memory."""

    factor: Tensor
    offset: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.register_buffer("factor", (1 / (255 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", (-mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 ``(B, H, W, 3)`` to float32 ``(B, 3, H, W)``."""
        return self.planes(images.permute(0, 3, 1, 2).float())  # a view: bytes stored HWC are already channels last

    def planes(self, planes: Tensor) -> Tensor:
        """Normalize float32 ``(B, 3, H, W)``, 0 to 255."""
        return torch.addcmul(self.offset, planes, self.factor)


class EagerEngine:
    """Plain PyTorch without gradients, in the precision of ``precision_on``."""

    name = "eager"

    def __init__(
        self,
        blocks: nn.Module,
        preprocessing: Preprocessing,
        device: torch.device | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        self._device = device or best_device()
        self._precision = precision or precision_on(self._device)
        self._layout = layout_on(self._device)
        self._normalize = Normalize(preprocessing).to(self._device)
        self._blocks = blocks.eval().to(device=self._device, memory_format=self._layout)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See ``Engine``."""
        batch = torch.from_numpy(images).to(self._device, non_blocking=True)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._precision == torch.bfloat16):
            planes = self._normalize(batch).contiguous(memory_format=self._layout)
            result: NDArray[np.float32] = self._blocks(planes).float().cpu().numpy()
        return result


class OpenVinoEngine:
    """A network ``(B, side_px, side_px, 3)`` uint8 -> float32, compiled by OpenVINO."""

    name = "openvino"
    is_verified = False  # agrees with PyTorch

    def __init__(self, network: nn.Module, folder: Path, side_px: int) -> None:
        """Load the graph in ``folder``, or convert ``network`` (in eval mode on the CPU) and save its graph there."""
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # would report every import; has a stub
        openvino = import_module("openvino")
        graph: Any = str(folder / GRAPH_FILE)
        try:
            if not _is_intact(folder):
                shutil.rmtree(folder, ignore_errors=True)
                _create_once(folder, lambda draft: _save(openvino, _convert(openvino, network, side_px), draft))
            os.utime(folder)  # the cache removes the least recently used entries first
        except (OSError, RuntimeError) as error:
            if not isinstance(error, OSError) and explain(error) is None:
                raise
            if not _is_intact(folder):  # nothing can be written there: do without the file
                graph = _convert(openvino, network, side_px)
        # As PyTorch does: several processes, each with a thread per core, would wait for each other.
        num_threads = os.environ.get("OMP_NUM_THREADS", "")
        limit = {"INFERENCE_NUM_THREADS": num_threads} if num_threads.isdecimal() and int(num_threads) else {}
        self._compiled: Any = openvino.Core().compile_model(graph, "CPU", OPENVINO_SETTINGS | limit)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See ``Engine``."""
        rows: NDArray[np.float32] = self._compiled([np.ascontiguousarray(images)])[0].copy()
        return rows


class VerifiedEngine:
    """A fast engine that has to agree with the eager one on the first images; otherwise the eager one takes over."""

    def __init__(self, fast: OpenVinoEngine, eager: Engine, progress: Progress) -> None:
        self._fast, self._eager, self._progress = fast, eager, progress
        self._engine: Engine = fast

    @property
    def name(self) -> str:
        """Name of the engine in use."""
        return self._engine.name

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See ``Engine``."""
        if self._engine is self._fast and not self._fast.is_verified:
            if problem := self._compare(images[:NUM_COMPARED]):
                self._progress.warn(f"{self._engine.name} {problem}; using PyTorch instead")
                self._engine = self._eager
            else:
                self._fast.is_verified = True
        return self._engine(images)

    def _compare(self, images: NDArray[np.uint8]) -> str | None:
        expected = self._eager(images)
        try:
            difference = float(np.abs(self._engine(images) - expected).max())
        except Exception as error:  # a network that was converted but doesn't run
            return f"failed ({type(error).__name__})"
        is_close = difference <= TOLERANCE * float(np.abs(expected).max())  # NaN is not
        return None if is_close else f"differs from PyTorch by {difference:.2g}"


def fastest_engine(
    blocks: nn.Module,
    preprocessing: Preprocessing,
    *,
    cache_dir: Path,
    num_images: int,
    progress: Progress,
    compiled: dict[Path, OpenVinoEngine] | None = None,
) -> Engine:
    """Choose the engine that finishes first, building included: eager on a GPU, for few images, and if OpenVINO fails.

    Args:
        blocks: the frozen blocks.
        preprocessing: of the images.
        cache_dir: where graphs are cached.
        num_images: number of images to run.
        progress: receives a line if OpenVINO can't be used.
        compiled: keeps the last graph by its folder, for the next call of the same thread; several would fill the memory.
    """
    eager = EagerEngine(blocks, preprocessing)
    if best_device().type != "cpu" or num_images <= BREAK_EVEN_IMAGES or find_spec("openvino") is None:
        _log.debug("engine for %d images: PyTorch on %s", num_images, best_device())
        return eager
    digest = f"{OpenVinoEngine.name} {blocks_digest(blocks)} {preprocessing.model_dump_json()}"
    folder = cache_dir / "engines" / hashlib.sha256(digest.encode()).hexdigest()
    compiled = {} if compiled is None else compiled
    if folder in compiled:
        return VerifiedEngine(compiled[folder], eager, progress)
    compiled.clear()
    try:
        fast = OpenVinoEngine(nn.Sequential(Normalize(preprocessing), blocks).eval(), folder, preprocessing.side_px)
    except Exception as error:  # converters raise errors of any type, and PyTorch can always do the work
        progress.info(f"OpenVINO can't convert this network ({type(error).__name__}); using PyTorch instead")
        return eager
    _log.debug("engine for %d images: OpenVINO, graph in %s", num_images, folder)
    compiled[folder] = fast
    return VerifiedEngine(fast, eager, progress)


def load_pixels(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode, crop and resize an image: ``(side_px, side_px, 3)``, RGB, 0 to 255.

    Args:
        data: content of an image file.
        preprocessing: side, crop and interpolation; normalization is left to the engine.

    Raises:
        UndecodableError: the bytes are not a usable image.
    """
    shorter_px = round(preprocessing.side_px / preprocessing.crop_fraction)
    return to_input(decode(data, side_px=shorter_px).image, preprocessing)


def embed(paths: Sequence[str], read: Read, engine: Engine, preprocessing: Preprocessing) -> Iterator[NDArray[np.float32]]:
    """Yield the outputs of ``engine`` ``(B, ...)`` for images, in order.

    Args:
        paths: of readable images.
        read: returns the bytes of a path; called from several threads.
        engine: frozen blocks.
        preprocessing: of the images.

    Raises:
        UndecodableError: an image that the scan could read can't be read any more.
    """
    return map(engine, load_batches(paths, lambda path: load_pixels(read(path), preprocessing)))


def load_batches(paths: Sequence[str], load: Callable[[str], NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Yield loaded images ``(B, side_px, side_px, 3)``, in order, ``BATCH_SIZE`` at a time.

    Args:
        paths: of readable images.
        load: returns the pixels of a path; called from several threads.
    """
    return map(np.stack, batches(in_order(paths, load), BATCH_SIZE))


def latency_ms(run: Callable[[NDArray[np.uint8]], object], side_px: int, *, num_images: int = 1) -> float:
    """Time one batch in ms: the shortest of eight runs, which other processes disturbed least, after a warm-up.

    Args:
        run: an engine, or anything else that takes images ``(B, side_px, side_px, 3)`` and returns arrays on the CPU.
        side_px: height and width of the images, which are gray.
        num_images: B.
    """
    images = np.full((num_images, side_px, side_px, 3), 128, dtype=np.uint8)
    run(images)
    times_s = []
    for _ in range(NUM_TIMED):
        started_s = time.perf_counter()
        run(images)
        times_s.append(time.perf_counter() - started_s)
    return 1000 * min(times_s)


def best_device() -> torch.device:
    """Return the accelerator (CUDA, MPS, XPU ...) if there is one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def precision_on(device: torch.device) -> torch.dtype:
    """Precision of the frozen blocks and of training steps: bfloat16 on CUDA devices that support it, else float32."""
    is_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if is_bf16 else torch.float32


def layout_on(device: torch.device) -> torch.memory_format:
    """Memory layout of images and weights: channels last, which is faster, except on a CUDA device.

    There cuDNN (from 9.10 on) compiles channels-last depthwise convolutions again for every batch size, 0.1 s per layer
    (NVIDIA/cudnn-frontend issue 1066); torch has kernels of its own for the other layout (decision 44).
    """
    return torch.contiguous_format if device.type == "cuda" else torch.channels_last


class _Digested(NamedTuple):
    layers: str
    tensors: list[ref[Tensor]]  # so that no weights are kept in memory
    changes: list[tuple[int, int]]  # address and number of changes in place
    digest: str


_digested: Final[deque[_Digested]] = deque(maxlen=16)  # more than the networks and their levels that a fit uses at a time


def blocks_digest(blocks: nn.Module) -> str:
    """sha256 of the printed layers of ``blocks`` and of their tensors; hashed again only if one of them has changed."""
    # 1) The same tensors, unchanged? PyTorch counts changes in place, except in inference mode.
    layers, state = repr(blocks), blocks.state_dict(keep_vars=True)
    tensors = list(state.values())
    is_counted = not any(tensor.is_inference() for tensor in tensors)
    changes = [(tensor.data_ptr(), tensor._version) for tensor in tensors] if is_counted else []
    for known in tuple(_digested) if is_counted else ():
        if (known.layers, known.changes) == (layers, changes) and all(map(_is_alive_as, known.tensors, tensors)):
            return known.digest
    # 2) Hash names and values.
    digest = hashlib.sha256(layers.encode())
    for name, tensor in state.items():
        digest.update(name.encode())
        plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    if is_counted:
        _digested.append(_Digested(layers, list(map(ref, tensors)), changes, digest.hexdigest()))
    return digest.hexdigest()


def _is_alive_as(weak: ref[Tensor], tensor: Tensor) -> bool:
    return weak() is tensor


def _create_once(folder: Path, fill: Callable[[Path], object]) -> None:
    """Let ``fill`` create ``folder`` as a whole or not at all; if another process was first, its folder stays."""
    draft = folder.with_name(f".{uuid.uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        fill(draft)
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _convert(openvino: ModuleType, network: nn.Module, side_px: int) -> Any:  # noqa: ANN401 - openvino has no types
    example = torch.zeros(2, side_px, side_px, 3, dtype=torch.uint8)
    # Tracing is deprecated in favor of export, which takes four times as long here.
    with warnings.catch_warnings(action="ignore"), torch.inference_mode():
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        graph = openvino.convert_model(traced, example_input=example)
    graph.reshape([-1, side_px, side_px, 3])
    return graph


def _save(openvino: ModuleType, graph: object, folder: Path) -> None:
    """Save a graph with the digest of its files."""
    openvino.save_model(graph, folder / GRAPH_FILE, compress_to_fp16=False)
    (folder / DIGEST_FILE).write_text(_digest_of_files(folder), encoding="ascii")


def _is_intact(folder: Path) -> bool:
    """Return whether the files of a graph are as they were saved: a power failure may leave half of one."""
    try:
        return (folder / DIGEST_FILE).read_bytes() == _digest_of_files(folder).encode()
    except OSError:
        return False


def _digest_of_files(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.name != DIGEST_FILE):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
