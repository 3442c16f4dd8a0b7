"""OpenVINO: frozen blocks on a CPU, several times as fast as torch. The converted graph is kept on disk."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.models.engines.kept import ready

__all__ = ["OpenVinoEngine"]

# float32 throughout: by default a CPU with AMX would silently compute in bfloat16.
SETTINGS: Final = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
GRAPH_FILE: Final = "graph.xml"


class OpenVinoEngine:
    """A network ``(B, side_px, side_px, 3)`` uint8 -> float32, compiled by OpenVINO."""

    name = "openvino"

    def __init__(self, network: nn.Module, folder: Path, side_px: int) -> None:
        """Load the graph in ``folder``, or convert ``network`` and put its graph there.

        Raises:
            ImportError: OpenVINO is not installed.
            Exception: OpenVINO can't convert the network.
        """
        openvino = _import_openvino()
        ready(folder, lambda draft: _convert(openvino, network, draft, side_px))
        self._compiled: Any = openvino.Core().compile_model(str(folder / GRAPH_FILE), "CPU", SETTINGS)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See ``Engine``."""
        rows: NDArray[np.float32] = self._compiled([np.ascontiguousarray(images)])[0].copy()
        return rows


def _import_openvino() -> ModuleType:
    """OpenVINO without its telemetry, which reports every import to its makers: it falls back to a stub of its own."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None means: not to be imported
    return import_module("openvino")


def _convert(openvino: ModuleType, network: nn.Module, folder: Path, side_px: int) -> None:
    """Trace, convert and save in ``folder``."""
    example = torch.zeros(2, side_px, side_px, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing is deprecated in favor of export, which takes four times as long here
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            network, example, check_trace=False
        )
        graph = openvino.convert_model(traced, example_input=example)
    graph.reshape([-1, side_px, side_px, 3])
    openvino.save_model(graph, folder / GRAPH_FILE, compress_to_fp16=False)
