"""Write the table of timm cards from the installed timm: ``python benchmarks/make_cards_timm.py``.

Every model is built on the meta device (no memory, no weights), cut into blocks, and run on a meta image, so that dimensions,
blocks and multiply-accumulates are counted on the network itself. Takes about half an hour on one core; the same timm gives
the same file.
"""

from __future__ import annotations

import gzip
import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

import timm
import torch
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg
from timm.models._registry import _model_to_module
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from automl_tl_timm.cards import COLUMNS, TABLE, entries
from automl_tl_timm.encoders import cut

# Word of a tag -> dataset. Tags name the datasets in the order of training: augreg_in21k_ft_in1k.
DATA: Final = {
    "in1k": "imagenet-1k",
    "in12k": "imagenet-12k",
    "in21k": "imagenet-21k",
    "in22k": "imagenet-21k",  # the same data, with another count of its classes
    "inw21k": "imagenet-21k",
    "fcmae": "imagenet-1k",
    "mae": "imagenet-1k",
    "dino": "imagenet-1k",
    "bamboo": "bamboo",
    "cc12m": "cc-12m",
    "laion2b": "laion-2b",
    "laion400m": "laion-400m",
    "laiona": "laion-aesthetic",
    "datacompxl": "datacomp-1b",
    "datacomp1b": "datacomp-1b",
    "mclip": "datacomp-dr-1b",
    "mclip2": "datacomp-dfn-dr",
    "dfn2b": "dfn-2b",
    "dfn5b": "dfn-5b",
    "dfndr2b": "dfn-dr-2b",
    "openai": "openai-wit-400m",
    "metaclip": "metaclip",
    "metaclip2": "metaclip-2",
    "merged2b": "merged-2b",
    "m30m": "merged-30m",
    "m38m": "merged-38m",
    "lvd142m": "lvd-142m",
    "lvd1689m": "lvd-1689m",
    "sat493m": "sat-493m",
    "webli": "webli",
    "pali": "webli",
    "pali2": "webli",
    "yfcc100m": "yfcc-100m",
    "yfcc15m": "yfcc-15m",
    "ig1b": "instagram-1b",
    "swag": "instagram-3.6b",
    "seer": "instagram-1b",
    "jft": "jft-300m",
    "sa1b": "sa-1b",
    "r896": "sa-v",  # Segment Anything 2
    "r1024": "sa-v",
    "florence2": "fld-5b",
}
# Number of classes -> dataset, for tags that name none.
CLASSES: Final = {
    1000: "imagenet-1k",
    11821: "imagenet-12k",
    11221: "imagenet-21k",
    19168: "imagenet-21k",
    21841: "imagenet-21k",
    21842: "imagenet-21k",
    21843: "imagenet-21k",
}
UNSTATED: Final = "unstated"

SPDX: Final = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "unknown": None,
}


class Facts(NamedTuple):
    """Measurements of a network."""

    feature_dim: int
    num_blocks: int
    num_parameters: int
    num_macs: int
    fixed_side: bool


def main() -> None:
    preprocessings: list[dict[str, Any]] = []
    models: list[list[Any]] = []
    defaults: dict[str, str] = {}
    for architecture in timm.list_models():
        config = get_pretrained_cfg(architecture, allow_unregistered=False)
        default = f"{architecture}.{config.tag}" if config and config.tag else architecture
        rows = _rows(architecture, default, preprocessings)
        if rows:
            defaults[architecture] = default
            models += rows
        print(f"{len(defaults):5} {architecture}: {len(rows) or 'no classifier, skipped'}", file=sys.stderr)
    table = {"library": "timm", "version": timm.__version__, "preprocessings": preprocessings, "defaults": defaults}
    text = json.dumps({**table, "models": models}, separators=(",", ":"))
    Path(str(files("automl_tl_timm").joinpath(TABLE))).write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{sum(1 for _ in entries())} cards", file=sys.stderr)  # raises if one is not valid


def _rows(architecture: str, default: str, preprocessings: list[dict[str, Any]]) -> list[list[Any]]:
    """Rows of the default and of every tag with weights; none for encoders of language models, which have no classes."""
    rows = []
    measured: dict[tuple[object, ...], Facts | None] = {}
    for model, config in get_arch_pretrained_cfgs(architecture).items():
        shape = (config.input_size, config.num_classes)
        if model == default or config.has_weights:
            if shape not in measured:
                measured[shape] = measure(model, config.input_size[-1])
            facts = measured[shape]
            rows += [] if facts is None else [_row(model, architecture, config, facts, preprocessings)]
    return rows


def measure(model: str, side_px: int) -> Facts | None:
    """Measure ``model`` at ``side_px``; ``None`` if it is not a classification network."""
    with torch.device("meta"):
        # Without gradients, since the counter would follow them through the graph.
        network = timm.create_model(model).eval().requires_grad_(False)
    if not callable(getattr(network, "get_classifier", None)):
        return None
    blocks = cut(network)
    encoder = nn.Sequential(*blocks)
    with FlopCounterMode(display=False) as counter:
        features = encoder(torch.zeros(1, 3, side_px, side_px, device="meta"))
    if features.ndim != 2:
        raise ValueError(f"{model}: features have the shape {tuple(features.shape)}")
    fixed = _is_fixed(encoder, side_px)  # what timm calls a fixed input size may be one that only positions are made for
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return Facts(features.shape[1], len(blocks), num_parameters, counter.get_total_flops() // 2, fixed)


def _is_fixed(encoder: nn.Module, side_px: int) -> bool:
    try:
        encoder(torch.zeros(1, 3, 2 * side_px, 2 * side_px, device="meta"))
    except (RuntimeError, AssertionError, ValueError):
        return True
    return False


def _row(model: str, architecture: str, config: Any, facts: Facts, preprocessings: list[dict[str, Any]]) -> list[Any]:  # noqa: ANN401
    preprocessing = {
        "side_px": config.input_size[-1],
        "crop_fraction": min(config.crop_pct, 1.0),  # six tags widen the image by a border; we take all of it
        "interpolation": config.interpolation,
        "mean": list(config.mean),
        "std": list(config.std),
    }
    if preprocessing not in preprocessings:
        preprocessings.append(preprocessing)
    values = {
        "model": model,
        "family": _model_to_module[architecture],
        "preprocessing": preprocessings.index(preprocessing),
        **facts._asdict(),
        "pretrained_on": pretrained_on(config.tag or "", config.num_classes) if config.has_weights else None,
        "license": spdx(config.license) if config.has_weights else None,
        "hub": config.hf_hub_id or "",
        "filename": config.hf_hub_filename or "",
        "url": "" if config.hf_hub_id else config.url or "",
    }
    return [values[column] for column in COLUMNS]


def pretrained_on(tag: str, num_classes: int) -> str:
    """Datasets that the weights of ``tag`` were trained on, in order, e.g. ``imagenet-21k+imagenet-1k``."""
    datasets = [DATA[word] for word in tag.split("_") if word in DATA]
    last = CLASSES.get(num_classes)
    if last and last not in datasets:
        datasets.append(last)
    return "+".join(dict.fromkeys(datasets)) or UNSTATED


def spdx(license: str | None) -> str | None:
    """SPDX identifier of a license by timm's name; ``LicenseRef-`` and the name if SPDX has none."""
    if not license:
        return None
    return SPDX.get(license, f"LicenseRef-{license}")


if __name__ == "__main__":
    main()
