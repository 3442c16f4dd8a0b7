"""ONNX Runtime: frozen blocks on a CPU where OpenVINO is not at home. The exported graph is kept on disk."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.models.engines.kept import ready

__all__ = ["OnnxRuntimeEngine"]

GRAPH_FILE: Final = "graph.onnx"
OPSET: Final = 18


class OnnxRuntimeEngine:
    """A network ``(B, side_px, side_px, 3)`` uint8 -> float32, run by ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self, network: nn.Module, folder: Path, side_px: int) -> None:
        """Load the graph in ``folder``, or export ``network`` and put its graph there.

        Raises:
            ImportError: the extra ``onnx`` is not installed.
            Exception: the network can't be exported.
        """
        import onnxruntime

        ready(folder, lambda draft: _export(network, draft / GRAPH_FILE, side_px))
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # its threads share cores with decoding
        self._session: Any = onnxruntime.InferenceSession(folder / GRAPH_FILE, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See ``Engine``."""
        rows: NDArray[np.float32] = self._session.run(None, {"images": np.ascontiguousarray(images)})[0]
        return rows


def _export(network: nn.Module, file: Path, side_px: int) -> None:
    example = torch.zeros(2, side_px, side_px, 3, dtype=torch.uint8)
    free = ({0: torch.export.Dim.DYNAMIC},)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about its own internals
        program = torch.onnx.export(
            network, (example,), dynamic_shapes=free, opset_version=OPSET, input_names=["images"], verbose=False
        )
    assert program is not None
    program.save(file)
