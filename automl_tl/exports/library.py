"""Weights under the names that timm and torchvision know them by, so that a model can go on living there."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from automl_tl.errors import ModelError
from automl_tl.exports.snippets import snippet
from automl_tl.models.bundle import Classifier
from automl_tl.plugin_host import Catalog

__all__ = ["write_library"]


def write_library(classifier: Classifier, catalog: Catalog, export_format: str, folder: Path) -> str:
    """Write ``model.safetensors`` and ``head.safetensors``; gives the program that runs them with the library alone.

    Raises:
        ModelError: the model's backbone isn't of that library, or its classifier can't be found in the network.
    """
    provider, _, name = classifier.facts.backbone.partition("/")
    if provider != export_format:
        raise ModelError(
            f"This model stands on {classifier.facts.backbone}, which {export_format} doesn't know. "
            "The formats onnx, openvino and torch-export take every model."
        )
    offered = catalog.backbone(classifier.facts.backbone)
    network = offered.build(pretrained=False)
    nn.Sequential(*offered.cut(network)).load_state_dict(classifier.encoder.state_dict())
    place = _place_of(offered.classifier(network), network, classifier.facts.backbone)
    parent, _, last = place.rpartition(".")
    setattr(network.get_submodule(parent), last, nn.Identity())
    save_file(_own(network.state_dict()), folder / "model.safetensors")
    save_file(_own(classifier.head.state_dict()), folder / "head.safetensors")
    strip = f"setattr(network.get_submodule({parent!r}), {last!r}, torch.nn.Identity())"
    architecture = name.split(".")[0] if export_format == "torchvision" else name
    return snippet(export_format, network=architecture, strip=strip, head=classifier.facts.head.kind)


def _place_of(classifier: nn.Module | None, network: nn.Module, backbone: str) -> str:
    for name, module in network.named_modules():
        if module is classifier and name:
            return str(name)
    raise ModelError(f"The classifier of {backbone} can't be taken off; the formats onnx, openvino and torch-export can.")


def _own(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor with storage of its own, as safetensors wants it; tensors in two places are kept in both."""
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
