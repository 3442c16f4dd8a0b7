"""A saved model: ``encoder.safetensors`` and ``head.safetensors``, the latter with the facts needed to use both.

Loading runs no code from the files, which hold tensors and JSON only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from automl_tl.errors import ModelError, PluginError, UnknownBackboneError
from automl_tl.models.heads import HeadShape, build_head
from automl_tl.models.weights import load_weights
from automl_tl.plugin_host import Catalog, LoadedBackbone
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import Preprocessing, Value

__all__ = ["BundleFacts", "Classifier", "build_encoder", "load_bundle", "read_facts", "save_bundle"]

METADATA_KEY = "automl_tl"  # a single key, because the order of several isn't fixed and the bytes must be


class BundleFacts(Value):
    """Facts saved with the tensors."""

    format: Literal[1] = 1
    classes: tuple[str, ...] = Field(min_length=2)
    preprocessing: Preprocessing
    backbone: str
    backbone_from: str = Field(description="distribution and version that provided the backbone")
    same_network_as: tuple[str, ...] = Field(default=(), description="backbones that can replace it; see BackboneCard")
    strategy: str
    head: HeadShape
    temperature: float = Field(gt=0)


@dataclass(frozen=True)
class Classifier:
    """An encoder, a head, and their facts. Both networks are in eval mode on the CPU."""

    encoder: nn.Module
    head: nn.Module
    facts: BundleFacts

    @torch.inference_mode()
    def probabilities(self, features: Tensor) -> Tensor:
        """Map features ``(B, D)`` to calibrated probabilities ``(B, C)``, float32."""
        return torch.softmax(self.head(features) / self.facts.temperature, dim=1)


def build_encoder(
    backbone: LoadedBackbone, *, pretrained: bool, weights_file: Path | None = None, progress: Progress = QUIET
) -> nn.Sequential:
    """Compose the blocks of a backbone: ``(B, 3, H, W)`` to ``(B, feature_dim)``, in eval mode.

    Args:
        backbone: to build.
        pretrained: whether to load weights.
        weights_file: weights to load instead of the pretrained ones.
        progress: receives a summary of what was loaded from ``weights_file``.

    Raises:
        WeightsError: the weights are not available, or those in ``weights_file`` don't fit.
    """
    network = backbone.build(pretrained=pretrained and weights_file is None)
    blocks = nn.Sequential(*backbone.cut(network)).eval()
    if pretrained and weights_file is not None:
        progress.info(load_weights(network, blocks, weights_file))
    return blocks


def save_bundle(folder: Path, classifier: Classifier) -> tuple[Path, Path, str]:
    """Write both files of a model.

    Args:
        folder: to write to.
        classifier: the model.

    Returns:
        Encoder file, head file, and the digest of tensors and facts, which is the same on every machine.
    """
    facts = classifier.facts
    encoder, head = _tensors(classifier.encoder), _tensors(classifier.head)
    encoder_file, head_file = folder / "encoder.safetensors", folder / "head.safetensors"
    order = list(encoder)  # safetensors doesn't keep it, and a substitute has other tensor names
    save_file(encoder, encoder_file, metadata={METADATA_KEY: json.dumps({"backbone": facts.backbone, "order": order})})
    save_file(head, head_file, metadata={METADATA_KEY: facts.model_dump_json()})
    return encoder_file, head_file, _digest(facts, {"encoder": encoder, "head": head})


def read_facts(head_file: Path) -> BundleFacts:
    """Read the facts in the header of ``head_file``.

    Raises:
        ModelError: the file is not the head of a model, or is damaged.
    """
    try:
        with safe_open(head_file, framework="np") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
        if text is None:
            raise ModelError(f"{head_file} is a safetensors file, but not the head of a model that `tl auto fit` wrote.")
        return BundleFacts.model_validate_json(text)
    except (OSError, SafetensorError, ValidationError) as error:
        raise ModelError(f"{head_file} can't be read as the head of a model: {error}") from error


def load_bundle(encoder_file: Path, head_file: Path, catalog: Catalog) -> Classifier:
    """Load a classifier. If its backbone is not installed, one with the same network replaces it.

    Args:
        encoder_file: written by :func:`save_bundle`.
        head_file: written by :func:`save_bundle`.
        catalog: of the installed backbones.

    Raises:
        ModelError: a file is damaged, its tensors don't fit its facts, or no installed backbone can build the encoder.
    """
    facts = read_facts(head_file)
    head = build_head(facts.head)
    _load_into(head, head_file)
    if facts.backbone in catalog.backbones:
        encoder = build_encoder(catalog.backbone(facts.backbone), pretrained=False)
        _load_into(encoder, encoder_file)
    else:
        encoder = build_encoder(_stand_in(facts, catalog), pretrained=False)
        _load_in_order(encoder, encoder_file)
    return Classifier(encoder.eval(), head.eval(), facts)


def _stand_in(facts: BundleFacts, catalog: Catalog) -> LoadedBackbone:
    """An installed backbone with the same network as the missing one, by either card."""
    named = [catalog.backbones[name] for name in facts.same_network_as if name in catalog.backbones]
    claiming = (backbone for backbone in catalog.backbones.values() if facts.backbone in backbone.card.same_network_as)
    substitute = next(iter(named), None) or next(claiming, None)
    if substitute is None:
        raise ModelError(_why_missing(facts, catalog))
    return substitute


def _why_missing(facts: BundleFacts, catalog: Catalog) -> str:
    reason = f"which no installed plugin provides. Install {facts.backbone_from}."
    try:
        catalog.backbone(facts.backbone)
    except UnknownBackboneError:
        pass
    except PluginError as error:
        reason = f"which is not available: {error}"
    return f"This model needs the backbone {facts.backbone!r}, {reason}"


def _load_in_order(module: nn.Module, file: Path) -> None:
    """Load tensors by their order instead of their names, comparing every shape."""
    tensors, ours = _read(file), module.state_dict()
    with safe_open(file, framework="np") as opened:
        order = json.loads((opened.metadata() or {}).get(METADATA_KEY, "{}")).get("order", [])
    shapes = [tuple(tensors[name].shape) for name in order if name in tensors]
    if len(shapes) != len(tensors) or shapes != [tuple(tensor.shape) for tensor in ours.values()]:
        raise ModelError(f"{file} doesn't hold the tensors of the backbone that replaces the missing one.")
    module.load_state_dict({name: tensors[theirs] for name, theirs in zip(ours, order, strict=True)})


def _load_into(module: nn.Module, file: Path) -> None:
    try:
        module.load_state_dict(_read(file))
    except RuntimeError as error:
        raise ModelError(f"{file} doesn't hold the tensors of its model: {error}") from error


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} can't be read as tensors: {error}") from error


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """State of ``module`` with separate storage for every tensor, as safetensors requires."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in module.state_dict().items()
    }


def _digest(facts: BundleFacts, parts: Mapping[str, Mapping[str, Tensor]]) -> str:
    total = hashlib.sha256(facts.model_dump_json(exclude={"backbone_from", "same_network_as"}).encode())
    for part, tensors in parts.items():
        for name, tensor in sorted(tensors.items()):
            total.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
