"""Writes the table of cards from the installed timm: ``python -m automl_tl_timm.make_cards``.

Every model is built on the meta device (no memory, no weights), cut, and run on a meta image, so that dimensions, blocks and
multiply-accumulates are those of the network itself. Takes about half an hour on one core; the same timm gives the same file.
"""

from __future__ import annotations

import gzip
import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from automl_tl_timm.cards import COLUMNS, TABLE, entries
from automl_tl_timm.provenance import pretrained_on, spdx

__all__ = ["main"]


class Facts(NamedTuple):
    """What building and running a network tells."""

    feature_dim: int
    num_blocks: int
    num_parameters: int
    num_macs: int
    fixed_side: bool


def main() -> None:
    """Measure every model and write the table into the package."""
    import timm

    preprocessings: list[dict[str, Any]] = []
    models: list[list[Any]] = []
    defaults: dict[str, str] = {}
    for architecture in timm.list_models():
        default = _default(architecture)
        rows = _rows(architecture, default, preprocessings)
        if rows:
            defaults[architecture] = default
            models += rows
        print(f"{len(defaults):5} {architecture}: {len(rows) or 'no classifier, left out'}", file=sys.stderr)
    table = {"library": "timm", "version": timm.__version__, "preprocessings": preprocessings, "defaults": defaults}
    text = json.dumps({**table, "models": models}, separators=(",", ":"))
    Path(str(files("automl_tl_timm").joinpath(TABLE))).write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{sum(1 for _ in entries())} cards", file=sys.stderr)  # raises if one is not valid


def _default(architecture: str) -> str:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(architecture, allow_unregistered=False)
    return f"{architecture}.{config.tag}" if config and config.tag else architecture


def _rows(architecture: str, default: str, preprocessings: list[dict[str, Any]]) -> list[list[Any]]:
    """The default and every tag with weights; none for the encoders of language models, which classify nothing."""
    from timm.models import get_arch_pretrained_cfgs

    rows = []
    measured: dict[tuple[object, ...], Facts | None] = {}
    for model, config in get_arch_pretrained_cfgs(architecture).items():
        shape = (config.input_size, config.num_classes)
        if model == default or config.has_weights:
            if shape not in measured:
                measured[shape] = measure(model, config)
            facts = measured[shape]
            rows += [] if facts is None else [_row(model, architecture, config, facts, preprocessings)]
    return rows


def measure(model: str, config: Any) -> Facts | None:  # noqa: ANN401  timm's
    """Facts of ``model`` with the classes and the side of its tag; ``None`` if it is no classification network."""
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from automl_tl_timm.cutting import cut

    with torch.device("meta"):
        # Without gradients, since the counter follows tensors that have some through the graph.
        network = timm.create_model(model).eval().requires_grad_(False)
    if not callable(getattr(network, "get_classifier", None)):
        return None
    blocks = cut(network)
    encoder = torch.nn.Sequential(*blocks)
    side_px = config.input_size[-1]
    with FlopCounterMode(display=False) as counter:
        features = encoder(torch.zeros(1, 3, side_px, side_px, device="meta"))
    if features.ndim != 2:
        raise ValueError(f"{model}: features have the shape {tuple(features.shape)}")
    fixed = _is_fixed(encoder, side_px)  # what timm calls a fixed input size may be one that only positions are made for
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return Facts(features.shape[1], len(blocks), num_parameters, counter.get_total_flops() // 2, fixed)


def _is_fixed(encoder: Any, side_px: int) -> bool:  # noqa: ANN401  a torch module, which this file may not name at its top
    import torch

    try:
        encoder(torch.zeros(1, 3, 2 * side_px, 2 * side_px, device="meta"))
    except (RuntimeError, AssertionError, ValueError):
        return True
    return False


def _row(model: str, architecture: str, config: Any, facts: Facts, preprocessings: list[dict[str, Any]]) -> list[Any]:  # noqa: ANN401
    from timm.models._registry import _model_to_module

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


if __name__ == "__main__":
    main()
