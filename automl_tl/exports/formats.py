"""How each format is written: one function per format, from a graph to files in a folder. Runtimes are imported inside."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_tl.errors import ModelError
from automl_tl.exports.graph import WholeModel

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["OPSET", "need", "write_onnx", "write_openvino", "write_torch_export"]

OPSET = 18  # the newest that every ONNX Runtime since 1.14 (2023) runs
HALVED_FROM = 1024  # values; smaller tensors (and all of the preprocessing) stay float32
EXTRAS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino", "onnx", "onnxscript")}


def need(export_format: str) -> None:
    """Raise unless everything is installed that writing and checking ``export_format`` takes.

    Raises:
        ModelError: names what is missing and how to get it.
    """
    missing = [name for name in EXTRAS.get(export_format, ()) if find_spec(name) is None]
    if missing:
        raise ModelError(f"Exporting to {export_format} needs {', '.join(missing)}: `pip install 'automl-tl[onnx]'`.")


def write_torch_export(model: WholeModel, folder: Path, facts: dict[str, str]) -> Path:
    """``model.pt2``: a graph of torch operators; runs without automl_tl, without Python in AOTInductor."""
    file = folder / "model.pt2"
    with _quiet():
        torch.export.save(_traced(model), file, extra_files={"facts.json": json.dumps(facts)})
    return file


def write_onnx(model: WholeModel, folder: Path, facts: dict[str, str], *, half: bool = False) -> Path:
    """``model.onnx`` with ``facts`` in its metadata; with ``half`` the weights are kept as float16."""
    import onnx

    file = folder / "model.onnx"
    with _quiet():
        program = torch.onnx.export(
            _traced(model), opset_version=OPSET, input_names=["images"], output_names=["probabilities"], verbose=False
        )
    assert program is not None
    proto = program.model_proto
    for name, value in facts.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, value
    if half:
        _halve(proto)
    onnx.checker.check_model(proto)
    onnx.save(proto, file)
    return file


def write_onnx_int8(file: Path, target: Path, calibration: Sequence[NDArray[np.uint8]]) -> Path:
    """``file`` with 8-bit convolutions, ranges seen on ``calibration`` images ``(H, W, 3)``; preprocessing and head stay."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime carries no types
        def __init__(self) -> None:
            self._images = iter(calibration)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            image = next(self._images, None)
            return None if image is None else {"images": image[None]}

    with _quiet():
        quantize_static(
            file,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )
    return target


def write_openvino(onnx_file: Path, folder: Path, facts: dict[str, str], *, half: bool = False) -> Path:
    """``model.xml`` and ``model.bin`` from an ONNX file, ``facts`` as run-time information."""
    import openvino

    file = folder / "model.xml"
    model = openvino.convert_model(onnx_file)
    for name, value in facts.items():
        model.set_rt_info(value, ["automl_tl", name])
    openvino.save_model(model, file, compress_to_fp16=half)
    return file


def _traced(model: WholeModel) -> torch.export.ExportedProgram:
    """The graph for any number of images of any one size."""
    example = torch.zeros((2, 61, 47, 3), dtype=torch.uint8)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    return torch.export.export(model, (example,), dynamic_shapes=(free,))


def _halve(proto: Any) -> None:  # noqa: ANN401 - onnx's messages carry no types
    """Keep large float32 weights as float16, cast back where they are used: runtimes fold that at loading."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in proto.graph.initializer:
        array = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or array.size < HALVED_FROM:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(array.astype(np.float16), name=f"{name}__half"))
        casts.append(helper.make_node("Cast", [f"{name}__half"], [name], to=TensorProto.FLOAT))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*casts, *nodes])


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings from exporters: they speak of their own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
