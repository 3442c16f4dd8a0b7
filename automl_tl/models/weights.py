"""External weights for a known architecture: read safely, tolerate other prefixes and heads, report what was loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from automl_tl.errors import WeightsError

__all__ = ["load_weights", "read_weights"]

WRAPPERS: Final = (
    "module.",
    "_orig_mod.",
    "model.",
    "backbone.",
    "encoder.",
    "net.",
)  # DataParallel, torch.compile, common conventions
NESTS: Final = ("state_dict", "model_state_dict", "model", "model_ema", "ema", "net")
NUM_NAMED: Final = 5


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or a ``.pth`` without running code from it.

    Raises:
        WeightsError: the file can't be read, holds no tensors, or can't be loaded without running code.
    """
    try:
        content = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises errors of any type
        first_line = str(error).strip().partition("\n")[0]
        raise WeightsError(
            f"{file} can't be read as weights: {first_line}. Expected a safetensors file, or a .pth with tensors only."
        ) from error
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        inner = next((content[name] for name in NESTS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = (
        {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise WeightsError(f"{file} holds no named tensors. Expected the state_dict of a network.")
    return tensors


def load_weights(network: nn.Module, blocks: nn.Module, file: Path) -> str:
    """Load weights into a network. Every tensor of its blocks must be in the file; its classifier need not be.

    Args:
        network: to load into.
        blocks: the parts of ``network`` that are used.
        file: safetensors or ``.pth``.

    Returns:
        One sentence on what was loaded and what wasn't.

    Raises:
        WeightsError: a tensor of the blocks is missing or has another shape.
    """
    ours = network.state_dict(keep_vars=True)
    theirs = _renamed(read_weights(file), set(ours))
    fitting = {name: tensor for name, tensor in theirs.items() if name in ours and tensor.shape == ours[name].shape}
    needed = {id(tensor) for tensor in blocks.state_dict(keep_vars=True).values()}
    missing = [name for name, tensor in ours.items() if id(tensor) in needed and name not in fitting and not _is_counter(name)]
    if missing:
        raise WeightsError(
            f"{file} doesn't fit this backbone: {len(missing)} of its {len(ours)} tensors are missing or have another shape, "
            f"such as {_described(missing[:NUM_NAMED], ours, theirs)}. Is it for another architecture?"
        )
    network.load_state_dict(fitting, strict=False)
    left = sorted((set(theirs) - set(fitting)) | (set(ours) - set(fitting)))
    summary = f"loaded {len(fitting)} of {len(ours)} tensors from {file.name}"
    return f"{summary}; not loaded: {', '.join(left[:NUM_NAMED])}{' ...' if len(left) > NUM_NAMED else ''}" if left else summary


def _renamed(tensors: dict[str, Tensor], known: set[str]) -> dict[str, Tensor]:
    """Strip known prefixes from the names where that makes more of them match."""
    present = [wrapper for wrapper in WRAPPERS if any(name.startswith(wrapper) for name in tensors)]
    stripped = [{name.removeprefix(wrapper): tensor for name, tensor in tensors.items()} for wrapper in present]
    candidates = [tensors, *(_renamed(each, known) for each in stripped)]
    return max(candidates, key=lambda candidate: len(known & set(candidate)))


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")  # missing in old files, and not used here


def _described(names: list[str], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    shapes = {name: tuple(theirs[name].shape) if name in theirs else "missing" for name in names}
    return ", ".join(f"{name} {tuple(ours[name].shape)} (found: {shape})" for name, shape in shapes.items())
