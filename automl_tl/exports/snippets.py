"""Programs saved with exports: a few lines that run an export with its own runtime and without automl_tl.

The export is verified with its program in a new process, so a program that doesn't run fails the export.
"""

from __future__ import annotations

__all__ = ["snippet"]

START = '''"""Predict the class of images with the model in this folder. Requires: {needs}."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FOLDER = Path(__file__).parent
FACTS = json.loads((FOLDER / "facts.json").read_text(encoding="utf-8"))
'''

END = """

if __name__ == "__main__":
    run = load()
    for path in sys.argv[1:]:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        probabilities = run(np.array(image))
        best = int(probabilities.argmax())
        print(path, FACTS["classes"][best], f"{probabilities[best]:.1%}", sep="\\t")
"""

ONNX = '''import onnxruntime


def load():
    """Raw pixels (H, W, 3), uint8, upright RGB of any size -> probabilities (C,). The resize is inside the model."""
    session = onnxruntime.InferenceSession(FOLDER / "model.onnx")
    return lambda pixels: session.run(None, {"images": pixels[None]})[0][0]
'''

OPENVINO = '''import openvino


def load():
    """Raw pixels (H, W, 3), uint8, upright RGB of any size -> probabilities (C,). The resize is inside the model."""
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(FOLDER / "model.xml", "CPU", hint)
    return lambda pixels: model(pixels[None])[0][0]
'''

TORCH_EXPORT = '''import torch


def load():
    """Raw pixels (H, W, 3), uint8, upright RGB of any size -> probabilities (C,). The resize is inside the model."""
    model = torch.export.load(FOLDER / "model.pt2").module()

    @torch.inference_mode()
    def run(pixels):
        return model(torch.from_numpy(pixels)[None])[0].numpy()

    return run
'''

LIBRARY = '''import torch
from safetensors.torch import load_file
from torch.nn import functional
{imports}


def preprocess(pixels):
    """Crop, resize and normalize an upright RGB image (H, W, 3) to float32 (1, 3, side, side)."""
    image, prepare = Image.fromarray(pixels), FACTS["preprocessing"]
    side, square = prepare["side_px"], min(image.size) * prepare["crop_fraction"]
    left, top = (image.width - square) / 2, (image.height - square) / 2
    resampling = Image.Resampling[prepare["interpolation"].upper()]
    resized = image.resize((side, side), resampling, box=(left, top, left + square, top + square))
    values = torch.from_numpy(np.array(resized)).float() / 255
    return ((values - torch.tensor(prepare["mean"])) / torch.tensor(prepare["std"])).permute(2, 0, 1)[None]


{head}

def load():
    """Raw pixels (H, W, 3), uint8, upright RGB of any size -> probabilities (C,)."""
    network = {build}
    network.load_state_dict(load_file(FOLDER / "model.safetensors"))
    network.eval()
    head, facts = load_file(FOLDER / "head.safetensors"), FACTS

    @torch.inference_mode()
    def run(pixels):
        logits = classify(network(preprocess(pixels)), head)
        return torch.softmax(logits / facts["temperature"], dim=1)[0].numpy()

    return run
'''

CLOSED_FORM_HEAD = '''def classify(features, head):
    """Log of the mean probabilities of linear maps on unit-length features."""
    unit = (functional.normalize(features, dim=1) - head["mean"]) / head["scale"]
    scores = torch.einsum("bd,kcd->bkc", unit, head["weight"]) + head["bias"]
    return torch.softmax(scores / head["temperatures"][:, None], dim=2).mean(dim=1).log()
'''

TRAINED_HEAD = '''def classify(features, head):
    """Linear layers with ReLU between them."""
    names = sorted((name[:-7] for name in head if name.endswith(".weight")), key=lambda name: (name == "last", len(name), name))
    for name in names:
        features = functional.linear(features, head[name + ".weight"], head[name + ".bias"])
        features = features if name == "last" else functional.relu(features)
    return features
'''

MIDDLES = {"onnx": ONNX, "openvino": OPENVINO, "torch-export": TORCH_EXPORT}
NEEDS = {
    "onnx": "onnxruntime numpy pillow",
    "openvino": "openvino numpy pillow",
    "torch-export": "torch numpy pillow",
    "timm": "timm safetensors numpy pillow",
    "torchvision": "torchvision safetensors numpy pillow",
}
BUILDS = {
    "timm": ("import timm", "timm.create_model({name!r}, num_classes=0)"),
    "torchvision": ("import torchvision", "torchvision.models.get_model({name!r})"),
}


def snippet(export_format: str, *, network: str = "", strip: str = "", head: str = "solved") -> str:
    """Fill in the program for ``export_format``.

    Args:
        export_format: one of ``FORMATS``.
        network: timm and torchvision: the library's name of the architecture.
        strip: torchvision: statement that removes the classifier of ``network``.
        head: timm and torchvision: kind of the head.
    """
    start = START.format(needs=NEEDS[export_format])
    if export_format in MIDDLES:
        return start + MIDDLES[export_format] + END
    imports, build = BUILDS[export_format]
    middle = LIBRARY.format(
        imports=imports,
        head=CLOSED_FORM_HEAD if head == "solved" else TRAINED_HEAD,
        build=build.format(name=network) + (f"\n    {strip}" if strip else ""),
    )
    return start + middle + END
