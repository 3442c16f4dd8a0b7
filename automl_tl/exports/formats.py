"""Writers of the export formats, and the programs saved with them. Runtimes are imported where they are used.

A program runs an export with the format's own runtime and without automl_tl. The export is verified with its program in a
new process, so a program that doesn't run fails the export.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from automl_tl.errors import ModelError
from automl_tl.exports.graph import WholeModel
from automl_tl.exports.litert import LITERT_LOADER, write_litert
from automl_tl.exports.web import write_page
from automl_tl.models.bundle import Classifier, separate_tensors
from automl_tl.plugin_host import Catalog

ExportFormat = Literal["onnx", "torch-export", "openvino", "litert", "web", "hf", "mlflow", "torchvision"]
Precision = Literal["fp32", "fp16", "int8"]
FORMATS: Final = ("onnx", "torch-export", "openvino", "litert", "web", "hf", "mlflow", "torchvision")

OPSET: Final = 18  # the newest that every ONNX Runtime since 1.14 (2023) supports
HALVED_FROM: Final = 1024  # values; smaller tensors (and all of the preprocessing) stay float32
ONNX: Final = ("onnx", "onnxscript", "onnxruntime")
LITERT: Final = ("litert_torch", "ai_edge_litert")
RUNTIMES: Final = {
    "onnx": ONNX,
    "mlflow": ONNX,
    "web": ONNX,
    "openvino": ("openvino", "onnx", "onnxscript"),
    "litert": LITERT,
}


def require_runtime(export_format: ExportFormat) -> None:
    """Check that the packages for writing and verifying ``export_format`` are installed.

    Raises:
        ModelError: names the missing packages and how to install them.
    """
    missing = [name for name in RUNTIMES.get(export_format, ()) if find_spec(name) is None]
    if missing and export_format == "litert":
        raise ModelError(
            f"Exporting to litert needs {', '.join(missing)}: `pip install litert-torch`. Its releases may need an older torch "
            "than yours; then install automl-tl and litert-torch in an environment of their own."
        )
    if missing:
        extras = "onnx,openvino" if "openvino" in missing else "onnx"
        raise ModelError(f"Exporting to {export_format} needs {', '.join(missing)}: `pip install 'automl-tl[{extras}]'`.")


def write_export(
    classifier: Classifier,
    catalog: Catalog,
    folder: Path,
    calibration: Iterable[NDArray[np.uint8]],
    *,
    export_format: ExportFormat,
    precision: Precision,
) -> str:
    """Write weights or graph and return the source of the program that runs them.

    Args:
        classifier: to export.
        catalog: of the installed backbones, for torchvision.
        folder: to write to; must exist.
        calibration: raw images ``(H, W, 3)`` that determine the ranges of int8.
        export_format: one of ``FORMATS``.
        precision: of the weights; fp16 and int8 for onnx and openvino only.

    Raises:
        ModelError: torchvision: the backbone isn't of it, or its classifier can't be found.
    """
    if export_format == "torchvision":
        return _write_torchvision(classifier, catalog, folder)
    if export_format == "litert":
        write_litert(classifier, folder)
        return START.format(needs=NEEDS["litert"]) + LITERT_LOADER + END
    facts = classifier.facts.model_dump(mode="json", include={"classes", "preprocessing", "backbone", "temperature"})
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        for name, value in facts.items()
    }
    model = WholeModel(classifier)
    if export_format == "torch-export":
        with warnings.catch_warnings(action="ignore"):
            # In memory first: where the disk is full, torch's own writer of files aborts the process.
            extra_files = {"facts.json": json.dumps(texts, allow_nan=False)}
            torch.export.save(_trace(model), content := BytesIO(), extra_files=extra_files)
        (folder / "model.pt2").write_bytes(content.getbuffer())
    else:
        if export_format == "web":
            write_page(folder)
        onnx_file = _write_onnx(model, folder, texts, half=precision == "fp16" and export_format != "openvino")
        if precision == "int8":
            _quantize(onnx_file, calibration)
        if export_format == "openvino":
            import openvino

            graph = openvino.convert_model(onnx_file)
            for name, value in texts.items():
                graph.set_rt_info(value, ["automl_tl", name])
            openvino.save_model(graph, folder / "model.xml", compress_to_fp16=precision == "fp16")
            del graph  # Windows removes no file that is mapped
            onnx_file.unlink()
    loader = LOADERS["onnx" if export_format in ("mlflow", "web") else export_format]
    return START.format(needs=NEEDS[export_format]) + loader + END


def _trace(model: WholeModel) -> torch.export.ExportedProgram:
    """Trace a graph for any number of images of any one size."""
    example = torch.zeros((2, 61, 47, 3), dtype=torch.uint8)
    free = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    return torch.export.export(model, (example,), dynamic_shapes=(free,))


def _write_onnx(model: WholeModel, folder: Path, facts: dict[str, str], *, half: bool) -> Path:
    import onnx

    file = folder / "model.onnx"
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            _trace(model), opset_version=OPSET, input_names=["images"], output_names=["probabilities"], verbose=False
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


def _quantize(file: Path, calibration: Iterable[NDArray[np.uint8]]) -> None:
    """Quantize the convolutions of an ONNX file to 8 bits, in place; preprocessing and head stay float32."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
        def __init__(self) -> None:
            self._images = iter(calibration)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            image = next(self._images, None)
            return None if image is None else {"images": image[None]}

    whole = file.replace(file.with_name("whole.onnx"))
    with warnings.catch_warnings(action="ignore"):
        quantize_static(
            whole,
            file,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )
    whole.unlink()


def _write_torchvision(classifier: Classifier, catalog: Catalog, folder: Path) -> str:
    """Write ``model.safetensors`` and ``head.safetensors`` under torchvision's names."""
    provider, _, name = classifier.facts.backbone.partition("/")
    if provider != "torchvision":
        raise ModelError(
            f"Backbone {classifier.facts.backbone} is not part of torchvision. "
            "The formats onnx, openvino and torch-export support every model."
        )
    # 1) Load the trained weights into the whole network of the library.
    backbone = catalog.backbone(classifier.facts.backbone)
    network = backbone.build(pretrained=False)
    backbone.blocks(network).load_state_dict(classifier.encoder.state_dict())
    # 2) Take its classifier off and save both networks.
    last = backbone.classifier(network)
    place = next((name for name, module in network.named_modules() if module is last and name), None)
    if place is None:
        raise ModelError(
            f"The classifier of {classifier.facts.backbone} can't be removed; use the formats onnx, openvino or torch-export."
        )
    parent, _, child = place.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    save_file(separate_tensors(network), folder / "model.safetensors")
    save_file(separate_tensors(classifier.head), folder / "head.safetensors")
    # 3) The program does the same with the library alone.
    loader = TORCHVISION.format(
        preprocess=PREPROCESS,
        head=CLOSED_FORM_HEAD if classifier.facts.head.kind == "solved" else TRAINED_HEAD,
        name=name.split(".")[0],
        strip=f"setattr(network.get_submodule({parent!r}), {child!r}, torch.nn.Identity())",
    )
    return START.format(needs=NEEDS["torchvision"]) + loader + END


NEEDS: Final = {
    "onnx": "onnxruntime numpy pillow",
    "mlflow": "onnxruntime numpy pillow",
    "web": "onnxruntime numpy pillow",
    "litert": "ai-edge-litert numpy pillow",
    "openvino": "openvino numpy pillow",
    "torch-export": "torch numpy pillow",
    "hf": "timm safetensors numpy pillow",
    "torchvision": "torchvision safetensors numpy pillow",
}

START: Final = '''"""Predict the class of images with the model in this folder. Requires: {needs}."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
FACTS = json.loads((FOLDER / "facts.json").read_text(encoding="utf-8"))
SHORTER_PX = round(FACTS["preprocessing"]["side_px"] / FACTS["preprocessing"]["crop_fraction"])
Image.MAX_IMAGE_PIXELS = 128_000_000  # Pillow warns above it and refuses twice as many

sys.path.insert(0, str(FOLDER))
from colors import read_rgb
'''

END: Final = """

def read(path):
    \"\"\"An image file -> raw pixels (H, W, 3), uint8, upright RGB, decoded as in training.\"\"\"
    return np.array(read_rgb(str(path), SHORTER_PX))


if __name__ == "__main__":
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")
    run, unreadable = load(), False
    for path in sys.argv[1:]:
        try:
            pixels = read(path)
        except Exception as error:
            print(f"{path}: cannot be read ({error})", file=sys.stderr)
            unreadable = True
            continue
        probabilities = run(pixels)
        best = int(probabilities.argmax())
        label = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in FACTS["classes"][best])
        print(path, label, f"{probabilities[best]:.1%}", sep="\\t")
    sys.exit(unreadable)
"""

LOADERS: Final = {
    "onnx": '''import onnxruntime


def load():
    """Raw pixels (H, W, 3), uint8, upright RGB of any size -> probabilities (C,). The resize is inside the model."""
    session = onnxruntime.InferenceSession(FOLDER / "model.onnx")
    return lambda pixels: session.run(None, {"images": pixels[None]})[0][0]
''',
    "openvino": '''import openvino


def load():
    """Raw pixels (H, W, 3), uint8, upright RGB of any size -> probabilities (C,). The resize is inside the model."""
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(FOLDER / "model.xml", "CPU", hint)
    return lambda pixels: model(pixels[None])[0][0]
''',
    "torch-export": '''import torch


def load():
    """Raw pixels (H, W, 3), uint8, upright RGB of any size -> probabilities (C,). The resize is inside the model."""
    model = torch.export.load(FOLDER / "model.pt2").module()

    @torch.inference_mode()
    def run(pixels):
        return model(torch.from_numpy(pixels)[None])[0].numpy()

    return run
''',
}

PREPROCESS: Final = '''def preprocess(pixels):
    """Crop, resize and normalize an upright RGB image (H, W, 3) to float32 (1, 3, side, side)."""
    image, prepare = Image.fromarray(pixels), FACTS["preprocessing"]
    side, square = prepare["side_px"], min(image.size) * prepare["crop_fraction"]
    left, top = (image.width - square) / 2, (image.height - square) / 2
    resampling = Image.Resampling[prepare["interpolation"].upper()]
    resized = image.resize((side, side), resampling, box=(left, top, left + square, top + square))
    values = torch.from_numpy(np.array(resized)).float() / 255
    return ((values - torch.tensor(prepare["mean"])) / torch.tensor(prepare["std"])).permute(2, 0, 1)[None]
'''

TORCHVISION: Final = '''import torch
from safetensors.torch import load_file
from torch.nn import functional
import torchvision


{preprocess}

{head}

def load():
    """Raw pixels (H, W, 3), uint8, upright RGB of any size -> probabilities (C,)."""
    network = torchvision.models.get_model({name!r})
    {strip}
    network.load_state_dict(load_file(FOLDER / "model.safetensors"))
    network.eval()
    head, facts = load_file(FOLDER / "head.safetensors"), FACTS

    @torch.inference_mode()
    def run(pixels):
        logits = classify(network(preprocess(pixels)), head)
        return torch.softmax(logits / facts["temperature"], dim=1)[0].numpy()

    return run
'''

CLOSED_FORM_HEAD: Final = '''def classify(features, head):
    """Log of the mean probabilities of linear maps on unit-length features."""
    unit = (functional.normalize(features, dim=1) - head["mean"]) / head["scale"]
    scores = torch.einsum("bd,kcd->bkc", unit, head["weight"]) + head["bias"]
    return torch.softmax(scores / head["temperatures"][:, None], dim=2).mean(dim=1).log()
'''

TRAINED_HEAD: Final = '''def classify(features, head):
    """Linear layers with ReLU between them."""
    names = sorted((name[:-7] for name in head if name.endswith(".weight")), key=lambda name: (name == "last", len(name), name))
    for name in names:
        features = functional.linear(features, head[name + ".weight"], head[name + ".bias"])
        features = features if name == "last" else functional.relu(features)
    return features
'''
