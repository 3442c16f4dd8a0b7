"""A saved model: ``encoder.safetensors`` and ``head.safetensors``, the latter with all that is needed to use them.

Loading runs no code from the files: tensors and JSON only.
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

from automl_tl.catalog import Catalog, OfferedBackbone
from automl_tl.errors import ModelError
from automl_tl.inference.heads import HeadShape, build_head
from automl_tl.inference.weights import load_weights
from automl_tl.story import SILENT, Story
from automl_tl.values import Preprocessing, Value

__all__ = ["BundleFacts", "Classifier", "build_encoder", "load_bundle", "read_facts", "save_bundle"]

METADATA_KEY = "automl_tl"  # one key: the order of several is not fixed, and the bytes must be


class BundleFacts(Value):
    """What travels with the tensors."""

    format: Literal[1] = 1
    classes: tuple[str, ...] = Field(min_length=2)
    preprocessing: Preprocessing
    backbone: str
    backbone_from: str = Field(description="distribution and version that offered the backbone")
    strategy: str
    head: HeadShape
    temperature: float = Field(gt=0)


@dataclass(frozen=True)
class Classifier:
    """An encoder, a head, and what is known about them. Both networks are in eval mode on the CPU."""

    encoder: nn.Module
    head: nn.Module
    facts: BundleFacts

    @torch.inference_mode()
    def probabilities(self, features: Tensor) -> Tensor:
        """Map features ``(B, D)`` to calibrated probabilities ``(B, C)``, float32."""
        return torch.softmax(self.head(features) / self.facts.temperature, dim=1)


def build_encoder(
    backbone: OfferedBackbone, *, pretrained: bool, weights_file: Path | None = None, story: Story = SILENT
) -> nn.Sequential:
    """The backbone's blocks, composed: ``(B, 3, H, W)`` to ``(B, feature_dim)``, in eval mode.

    Raises:
        WeightsError: the weights can't be had, or those in ``weights_file`` don't fit.
    """
    network = backbone.build(pretrained=pretrained and weights_file is None)
    blocks = nn.Sequential(*backbone.cut(network)).eval()
    if pretrained and weights_file is not None:
        story.say(load_weights(network, blocks, weights_file))
    return blocks


def save_bundle(folder: Path, classifier: Classifier) -> tuple[Path, Path, str]:
    """Write both files into ``folder``; gives their paths and the digest of the model.

    The digest covers tensors and facts, no time and no place: the same model has the same digest anywhere.
    """
    facts = classifier.facts
    encoder, head = _tensors(classifier.encoder), _tensors(classifier.head)
    encoder_file, head_file = folder / "encoder.safetensors", folder / "head.safetensors"
    save_file(encoder, encoder_file, metadata={METADATA_KEY: json.dumps({"backbone": facts.backbone})})
    save_file(head, head_file, metadata={METADATA_KEY: facts.model_dump_json()})
    return encoder_file, head_file, _digest(facts, {"encoder": encoder, "head": head})


def read_facts(head_file: Path) -> BundleFacts:
    """What ``head_file`` says about its model; reads the header alone.

    Raises:
        ModelError: the file is no head of a model, or is damaged.
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
    """The classifier in the two files.

    Raises:
        ModelError: a file is damaged, or its tensors don't fit what it says of itself.
        UnknownBackboneError: the plugin that can build the encoder is not installed.
    """
    facts = read_facts(head_file)
    if facts.backbone not in catalog.backbones:
        raise ModelError(
            f"This model stands on the backbone {facts.backbone!r}, which no installed plugin offers. "
            f"Install {facts.backbone_from}, which it was fitted with."
        )
    encoder = build_encoder(catalog.backbone(facts.backbone), pretrained=False)
    head = build_head(facts.head)
    _load_into(encoder, encoder_file)
    _load_into(head, head_file)
    return Classifier(encoder.eval(), head.eval(), facts)


def _load_into(module: nn.Module, file: Path) -> None:
    try:
        module.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{file} doesn't hold the tensors that its model needs: {error}") from error


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """State of ``module`` with storage of its own for every tensor: safetensors refuses shared memory."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in module.state_dict().items()
    }


def _digest(facts: BundleFacts, parts: Mapping[str, Mapping[str, Tensor]]) -> str:
    total = hashlib.sha256(facts.model_dump_json(exclude={"backbone_from"}).encode())
    for part, tensors in parts.items():
        for name, tensor in sorted(tensors.items()):
            total.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
