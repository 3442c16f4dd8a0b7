"""Writers of the export formats: one function per format. Runtimes are imported where they are used."""

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
from safetensors.torch import save_file
from torch import Tensor, nn

from automl_tl.errors import ModelError
from automl_tl.exports.graph import WholeModel
from automl_tl.exports.snippets import snippet
from automl_tl.models.bundle import Classifier
from automl_tl.plugin_host import Catalog

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "OPSET",
    "require_runtime",
    "write_library",
    "write_onnx",
    "write_onnx_int8",
    "write_openvino",
    "write_torch_export",
]

OPSET = 18  # the newest that every ONNX Runtime since 1.14 (2023) supports
HALVED_FROM = 1024  # values; smaller tensors (and all of the preprocessing) stay float32
EXTRAS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino", "onnx", "onnxscript")}


def require_runtime(export_format: str) -> None:
    """Check that the packages for writing and verifying ``export_format`` are installed.

    Raises:
        ModelError: names the missing packages and how to install them.
    """
    missing = [name for name in EXTRAS.get(export_format, ()) if find_spec(name) is None]
    if missing:
        raise ModelError(f"Exporting to {export_format} needs {', '.join(missing)}: `pip install 'automl-tl[onnx]'`.")


def write_torch_export(model: WholeModel, folder: Path, facts: dict[str, str]) -> Path:
    """Write ``model.pt2``: a graph of torch operators that runs without automl_tl, and without Python in AOTInductor.

    Args:
        model: to write.
        folder: to write to.
        facts: saved as ``facts.json`` inside the file.
    """
    file = folder / "model.pt2"
    with _quiet():
        torch.export.save(_traced(model), file, extra_files={"facts.json": json.dumps(facts)})
    return file


def write_onnx(model: WholeModel, folder: Path, facts: dict[str, str], *, half: bool = False) -> Path:
    """Write ``model.onnx``.

    Args:
        model: to write.
        folder: to write to.
        facts: saved in the metadata.
        half: store large weights as float16.
    """
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
    """Quantize the convolutions of an ONNX file to 8 bits; preprocessing and head stay float32.

    Args:
        file: to quantize.
        target: to write.
        calibration: images ``(H, W, 3)`` that determine the ranges.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
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
    """Convert an ONNX file to ``model.xml`` and ``model.bin``.

    Args:
        onnx_file: to convert.
        folder: to write to.
        facts: saved as run-time information.
        half: store weights as float16.
    """
    import openvino

    file = folder / "model.xml"
    model = openvino.convert_model(onnx_file)
    for name, value in facts.items():
        model.set_rt_info(value, ["automl_tl", name])
    openvino.save_model(model, file, compress_to_fp16=half)
    return file


def write_library(classifier: Classifier, catalog: Catalog, export_format: str, folder: Path) -> str:
    """Write ``model.safetensors`` and ``head.safetensors`` under the names of timm or torchvision.

    Args:
        classifier: the model.
        catalog: of the installed backbones.
        export_format: ``timm`` or ``torchvision``.
        folder: to write to.

    Returns:
        The program that runs them with the library alone.

    Raises:
        ModelError: the backbone isn't of that library, or its classifier can't be found in the network.
    """
    provider, _, name = classifier.facts.backbone.partition("/")
    if provider != export_format:
        raise ModelError(
            f"Backbone {classifier.facts.backbone} is not part of {export_format}. "
            "The formats onnx, openvino and torch-export support every model."
        )
    # 1) Load the trained weights into the whole network of the library.
    backbone = catalog.backbone(classifier.facts.backbone)
    network = backbone.build(pretrained=False)
    nn.Sequential(*backbone.cut(network)).load_state_dict(classifier.encoder.state_dict())
    # 2) Take its classifier off and save both parts.
    place = _submodule_name(backbone.classifier(network), network, classifier.facts.backbone)
    parent, _, last = place.rpartition(".")
    setattr(network.get_submodule(parent), last, nn.Identity())
    save_file(_separate(network.state_dict()), folder / "model.safetensors")
    save_file(_separate(classifier.head.state_dict()), folder / "head.safetensors")
    # 3) The program does the same with the library alone.
    strip = f"setattr(network.get_submodule({parent!r}), {last!r}, torch.nn.Identity())"
    architecture = name.split(".")[0] if export_format == "torchvision" else name
    return snippet(export_format, network=architecture, strip=strip, head=classifier.facts.head.kind)


def _traced(model: WholeModel) -> torch.export.ExportedProgram:
    """Trace a graph for any number of images of any one size."""
    example = torch.zeros((2, 61, 47, 3), dtype=torch.uint8)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    return torch.export.export(model, (example,), dynamic_shapes=(free,))


def _halve(proto: Any) -> None:  # noqa: ANN401 - onnx has no types
    """Store large float32 weights as float16 and cast them back where they are used, which runtimes fold at loading."""
    from onnx import TensorProto, helper, numpy_helper

    # 1) Replace each large weight by a float16 one and a cast back to its old name.
    casts = []
    for weight in proto.graph.initializer:
        array = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or array.size < HALVED_FROM:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(array.astype(np.float16), name=f"{name}__half"))
        casts.append(helper.make_node("Cast", [f"{name}__half"], [name], to=TensorProto.FLOAT))
    # 2) The casts come first, as nodes are in topological order.
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*casts, *nodes])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings about their own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _submodule_name(classifier: nn.Module | None, network: nn.Module, backbone: str) -> str:
    for name, module in network.named_modules():
        if module is classifier and name:
            return str(name)
    raise ModelError(f"The classifier of {backbone} can't be removed; use the formats onnx, openvino or torch-export.")


def _separate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Separate storage for every tensor, as safetensors requires; a shared tensor is saved under each of its names."""
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
