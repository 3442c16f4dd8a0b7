"""The program that travels with an export: a few lines that run it with its own runtime and nothing of automl_tl.

It is also what the export is checked with, in a new process: a snippet that didn't run would fail the export.
"""

from __future__ import annotations

__all__ = ["snippet"]

START = '''"""Say what is in a picture, with the model beside this file. Needs: {needs}."""

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
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        probabilities = run(np.array(picture))
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


def resized(pixels):
    """The center of an upright RGB picture (H, W, 3) as the network's input, float32 (1, 3, side, side)."""
    picture, prepare = Image.fromarray(pixels), FACTS["preprocessing"]
    side, square = prepare["side_px"], min(picture.size) * prepare["crop_fraction"]
    left, top = (picture.width - square) / 2, (picture.height - square) / 2
    how = Image.Resampling[prepare["interpolation"].upper()]
    small = picture.resize((side, side), how, box=(left, top, left + square, top + square))
    values = torch.from_numpy(np.array(small)).float() / 255
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
        logits = classify(network(resized(pixels)), head)
        return torch.softmax(logits / facts["temperature"], dim=1)[0].numpy()

    return run
'''

SOLVED_HEAD = '''def classify(features, head):
    """The mean of the probabilities of linear maps on features of unit length, as logarithms."""
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
    """A program for ``export_format``.

    Args:
        export_format: one of ``FORMATS``.
        network: timm and torchvision: the library's name of the architecture.
        strip: torchvision: statement that takes the classifier off ``network``.
        head: timm and torchvision: kind of the head.
    """
    start = START.format(needs=NEEDS[export_format])
    if export_format in MIDDLES:
        return start + MIDDLES[export_format] + END
    imports, build = BUILDS[export_format]
    middle = LIBRARY.format(
        imports=imports,
        head=SOLVED_HEAD if head == "solved" else TRAINED_HEAD,
        build=build.format(name=network) + (f"\n    {strip}" if strip else ""),
    )
    return start + middle + END
