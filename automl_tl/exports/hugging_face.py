"""A folder that timm and transformers load: ``config.json``, ``model.safetensors`` and a model card.

timm's networks end in a linear layer, so the head becomes one (``linear_layer``). timm's own decoding and transform differ from
ours; that is measured, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import nn

from automl_tl.errors import ModelError
from automl_tl.exports.formats import END, NEEDS, PREPROCESS, START
from automl_tl.exports.linear_layer import ELSEWHERE, LinearLayer, TimmNetwork
from automl_tl.models.bundle import separate_tensors
from automl_tl.plugin_host import LoadedBackbone
from automl_tl.values import Preprocessing

SOURCE_KEYS: Final = ("architecture", "custom_load", "num_classes", "label_offset", "url", "file", "hf_hub_id", "state_dict")

PROGRAM: Final = '''import timm
import torch


{preprocess}

def load():
    """Raw pixels (H, W, 3), uint8, upright RGB of any size -> probabilities (C,)."""
    network = timm.create_model(f"local-dir:{{FOLDER}}", pretrained=True).eval()

    @torch.inference_mode()
    def run(pixels):
        return torch.softmax(network(preprocess(pixels)), dim=1)[0].numpy()

    return run
'''

# What users of timm write, and what the pipeline of transformers does: timm's transform on what Pillow makes of a file.
LIBRARY_ROUTE: Final = """
import json, sys
from pathlib import Path
import numpy as np, timm, torch
from PIL import Image, ImageOps

folder, images, out = sys.argv[1:]
network = timm.create_model("local-dir:" + folder, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))

@torch.inference_mode()
def run(file):
    try:
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    except (OSError, ValueError):  # HEIC, and what else Pillow alone can't read
        return np.full(network.num_classes, np.nan)
    return torch.softmax(network(transform(image)[None]), dim=1)[0].numpy()

rows = [run(file) for file in sorted(Path(images).iterdir())]
np.savez(out, probabilities=np.stack(rows).astype(np.float32))
print(json.dumps({"latency_ms": 0.0}))
"""


def write_hugging_face(classes: Sequence[str], source: TimmNetwork, layer: LinearLayer, folder: Path) -> str:
    """Write ``config.json`` and ``model.safetensors`` and return the source of ``predict.py``.

    Args:
        classes: in the order of the logits.
        source: the network, and the tensors of the model's encoder.
        layer: becomes the network's last one.
        folder: to write to; must exist.

    Raises:
        ModelError: the installed timm has another network, or it does not end in one linear layer.
    """
    backbone = source.backbone
    network: Any = backbone.build(pretrained=False)
    _load_in_order(backbone, network, source.encoder)
    network.reset_classifier(len(classes))
    last: Any = backbone.classifier(network)
    last = getattr(last, "convolution", last)  # the adapter of a 1 x 1 convolution
    if not isinstance(last, (nn.Linear, nn.Conv2d)) or last.weight.numel() != layer.weight.numel() or last.bias is None:
        raise ModelError(f"{backbone.card.name} does not end in one linear layer on its features. {ELSEWHERE}")
    with torch.no_grad():
        last.weight.copy_(layer.weight.reshape(last.weight.shape))
        last.bias.copy_(layer.bias)
    save_file(separate_tensors(network), folder / "model.safetensors", metadata={"format": "pt"})
    config = json.dumps(_config(network, classes, source.preprocessing), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "config.json").write_text(config, encoding="utf-8")
    return START.format(needs=NEEDS["hf"]) + PROGRAM.format(preprocess=PREPROCESS) + END


def _load_in_order(backbone: LoadedBackbone, network: nn.Module, encoder: nn.Module) -> None:
    """Copy the tensors of an encoder; another plugin names them differently, in the same order."""
    blocks, theirs = backbone.blocks(network), encoder.state_dict()
    ours = blocks.state_dict()
    if [tensor.shape for tensor in ours.values()] != [tensor.shape for tensor in theirs.values()]:
        raise ModelError(f"{backbone.card.name} of the installed timm is not the network that was trained. {ELSEWHERE}")
    blocks.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))


def _config(network: Any, classes: Sequence[str], prepare: Preprocessing) -> dict[str, Any]:  # noqa: ANN401 - timm's class
    """Timm's ``config.json``, which transformers reads as well."""
    source = {key: value for key, value in network.pretrained_cfg.items() if key not in SOURCE_KEYS and value is not None}
    side = (3, prepare.side_px, prepare.side_px)
    return {
        "architecture": network.pretrained_cfg["architecture"],
        "num_classes": len(classes),
        "num_features": network.num_features,
        "label_names": list(classes),
        "pretrained_cfg": {
            **{key: source[key] for key in ("tag", "first_conv", "classifier", "fixed_input_size", "license") if key in source},
            "custom_load": False,
            "input_size": side,
            "pool_size": None,
            "crop_pct": prepare.crop_fraction,
            "crop_mode": "center",
            "interpolation": prepare.interpolation,
            "mean": prepare.mean,
            "std": prepare.std,
            "num_classes": len(classes),
        },
    }
