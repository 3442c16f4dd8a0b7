"""Write the table of torchvision cards from the installed torchvision: ``python benchmarks/make_cards_torchvision.py``.

Every network is built on the meta device (no memory, no weights), cut into blocks, and run on a meta image for its dimensions;
torchvision states the rest. Takes a minute or two; the same torchvision gives the same file.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from math import isnan
from pathlib import Path
from typing import Any, Final

import torch
import torchvision
from torchvision import models

from automl_tl_torchvision.cards import TABLE
from automl_tl_torchvision.encoders import cut
from automl_tl_torchvision.loading import build_random

# The only weights with a license of their own: Meta's SWAG, github.com/facebookresearch/SWAG/blob/main/LICENSE.
LICENSES: Final = {"https://github.com/facebookresearch/SWAG/blob/main/LICENSE": "CC-BY-NC-4.0"}
BYTES_PER_PARAMETER: Final = 4  # float32
SWAG: Final = "instagram-3.6b+imagenet-1k"


def main() -> None:
    rows = [
        {"model": model, "weights": weights.name, "default": weights is enum.DEFAULT, **_facts(model, weights)}
        for model in models.list_models(module=models)
        for enum in [models.get_model_weights(model)]
        for weights in enum
    ]
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    version = torchvision.__version__.partition("+")[0]
    text = f'{{"library": "torchvision", "version": "{version}", "models": [\n{lines}\n]}}\n'
    Path(str(files("automl_tl_torchvision").joinpath(TABLE))).write_text(text, encoding="utf-8")


def _top1(weights: Any) -> float:  # noqa: ANN401  an untyped enum
    return float(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]) / 100


def _facts(model: str, weights: Any) -> dict[str, Any]:  # noqa: ANN401  an untyped enum
    transforms, meta = weights.transforms(), weights.meta
    side_px = transforms.crop_size[0]
    measured = _measured(model, weights.name if isnan(_top1(weights)) else "", side_px)
    return {
        "url": weights.url,
        "family": models.get_model_builder(model).__module__.rpartition(".")[2],
        "preprocessing": {
            "side_px": side_px,
            "crop_fraction": round(side_px / transforms.resize_size[0], 6),
            "interpolation": transforms.interpolation.value,
            "mean": transforms.mean,
            "std": transforms.std,
        },
        **measured,
        # Not the size of the file, which for GoogLeNet is mostly auxiliary classifiers that are dropped on loading.
        "weights_mib": round(measured["num_parameters"] * BYTES_PER_PARAMETER / 2**20, 1),
        "num_macs": round(meta["_ops"] * 1e9),
        "pretrained_on": SWAG if "SWAG" in weights.name else "imagenet-1k",
        "imagenet_top1": None if isnan(_top1(weights)) else round(_top1(weights), 5),  # NaN: convolutions only
        "license": LICENSES.get(meta.get("license", "")),
    }


@cache
def _measured(model: str, weights: str, side_px: int) -> dict[str, Any]:
    try:
        with torch.device("meta"):
            network = build_random(model, weights, side_px)
    except NotImplementedError:  # RegNet reads its widths from tensors
        network = build_random(model, weights, side_px).to("meta")
    blocks = cut(network)
    encoder = torch.nn.Sequential(*blocks)
    with torch.no_grad():
        features = encoder(torch.zeros(1, 3, side_px, side_px, device="meta"))
        try:
            encoder(torch.zeros(1, 3, 2 * side_px, 2 * side_px, device="meta"))
            fixed_side = False
        except (RuntimeError, ValueError):
            fixed_side = True
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return {
        "feature_dim": features.shape[1],
        "num_blocks": len(blocks),
        "num_parameters": num_parameters,
        "fixed_side": fixed_side,
    }


if __name__ == "__main__":
    main()
