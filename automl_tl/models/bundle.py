"""A model and its files: ``encoder.safetensors``, and ``head.safetensors`` with the facts needed to use both.

Files hold tensors and JSON only; loading them runs no code. External weights for a backbone are read here, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from automl_tl.errors import ModelError, PluginError, UnknownBackboneError, WeightsError
from automl_tl.models.heads import HeadShape, build_head
from automl_tl.plugin_host import Catalog, LoadedBackbone
from automl_tl.plugin_host.ensemble import keep_lengths
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import Preprocessing, Value

METADATA_KEY: Final = "automl_tl"  # a single key, because the order of several isn't fixed and the bytes must be
# Prefixes in names of external weights: DataParallel, torch.compile, common conventions.
WRAPPERS: Final = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.")
NESTS: Final = ("state_dict", "model_state_dict", "model", "model_ema", "ema", "net")
NUM_NAMED: Final = 5

State = dict[str, Tensor]


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
    blocks = backbone.blocks(network)
    if pretrained and weights_file is not None:
        theirs = backbone.read_weights(network, weights_file)
        progress.info(load_weights(network, blocks, weights_file, theirs))
    return blocks


def save_bundle(folder: Path, classifier: Classifier) -> tuple[Path, Path, str]:
    """Write both files of a model.

    Args:
        folder: to write to; must exist.
        classifier: to save.

    Returns:
        Encoder file, head file, and the sha256 of tensors and facts.
    """
    facts = classifier.facts
    encoder, head = separate_tensors(classifier.encoder), separate_tensors(classifier.head)
    encoder_file, head_file = folder / "encoder.safetensors", folder / "head.safetensors"
    order = list(encoder)  # safetensors doesn't keep it, and a substitute has other tensor names
    save_file(encoder, encoder_file, metadata={METADATA_KEY: json.dumps({"backbone": facts.backbone, "order": order})})
    save_file(head, head_file, metadata={METADATA_KEY: facts.model_dump_json()})
    return encoder_file, head_file, _digest(facts, {"encoder": encoder, "head": head})


def separate_tensors(module: nn.Module) -> State:
    """State of ``module`` on the CPU with separate storage for every tensor, as safetensors requires."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in module.state_dict().items()
    }


def _digest(facts: BundleFacts, tensors: Mapping[str, State]) -> str:
    ignored: dict[str, bool | set[str]] = {"backbone_from": True, "same_network_as": True}
    if not facts.head.heads:  # of an averaged head only
        ignored["head"] = {"heads"}
    total = hashlib.sha256(facts.model_dump_json(exclude=ignored).encode())
    for network, state in tensors.items():
        for name, tensor in sorted(state.items()):
            total.update(f"{network}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _read_facts(head_file: Path) -> BundleFacts:
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
    facts = _read_facts(head_file)
    head = build_head(facts.head)
    _load_by_name(head, head_file)
    if facts.backbone in catalog.backbones:
        encoder = build_encoder(catalog.backbone(facts.backbone), pretrained=False)
        if facts.head.kind == "averaged":
            keep_lengths(encoder)
        _load_by_name(encoder, encoder_file)
    else:
        encoder = build_encoder(_substitute(facts, catalog), pretrained=False)
        _load_in_order(encoder, encoder_file)
    return Classifier(encoder.eval(), head.eval(), facts)


def _substitute(facts: BundleFacts, catalog: Catalog) -> LoadedBackbone:
    """An installed backbone with the same network as the missing one, by either card."""
    named = (catalog.backbones[name] for name in facts.same_network_as if name in catalog.backbones)
    claiming = (backbone for backbone in catalog.backbones.values() if facts.backbone in backbone.card.same_network_as)
    for substitute in chain(named, claiming):
        return substitute
    reason = f"which no installed plugin provides. Install {facts.backbone_from}."
    try:
        catalog.backbone(facts.backbone)
    except UnknownBackboneError:
        pass
    except PluginError as error:
        reason = f"which is not available: {error}"
    raise ModelError(f"This model needs the backbone {facts.backbone!r}, {reason}")


def _load_by_name(module: nn.Module, file: Path) -> None:
    try:
        module.load_state_dict(_read_tensors(file))
    except RuntimeError as error:
        raise ModelError(f"{file} doesn't hold the tensors of its model: {error}") from error


def _load_in_order(module: nn.Module, file: Path) -> None:
    """Load tensors by their order instead of their names, comparing every shape."""
    theirs, ours = _read_tensors(file), module.state_dict()
    with safe_open(file, framework="np") as opened:
        order = json.loads((opened.metadata() or {}).get(METADATA_KEY, "{}")).get("order", [])
    shapes = [tuple(theirs[name].shape) for name in order if name in theirs]
    if len(shapes) != len(theirs) or shapes != [tuple(tensor.shape) for tensor in ours.values()]:
        raise ModelError(f"{file} doesn't hold the tensors of the backbone that replaces the missing one.")
    module.load_state_dict({ours_name: theirs[name] for ours_name, name in zip(ours, order, strict=True)})


def _read_tensors(file: Path) -> State:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} can't be read as tensors: {error}") from error


def read_weights(file: Path) -> State:
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
    while isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        content = next((content[name] for name in NESTS if isinstance(content.get(name), Mapping)), None)
    raise WeightsError(f"{file} holds no named tensors. Expected the state_dict of a network.")


def load_weights(network: nn.Module, blocks: nn.Module, file: Path, tensors: Mapping[str, Tensor] | None = None) -> str:
    """Load weights into a network; return a sentence on what was loaded and what wasn't.

    Args:
        network: to load into; its classifier need not be in the file.
        blocks: the modules of ``network`` that are used; all of their tensors must be in the file.
        file: safetensors or ``.pth``, or in a format of the backbone's library.
        tensors: content of the file, if the backbone has read it.

    Raises:
        WeightsError: a tensor of the blocks is missing or has another shape.
    """
    ours = network.state_dict(keep_vars=True)
    theirs = _rename(read_weights(file) if tensors is None else dict(tensors), set(ours))
    fitting = {name: tensor for name, tensor in theirs.items() if name in ours and tensor.shape == ours[name].shape}
    needed = {id(tensor) for tensor in blocks.state_dict(keep_vars=True).values()}
    missing = [name for name, tensor in ours.items() if id(tensor) in needed and name not in fitting]
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]  # absent from old files, not used here
    if missing:
        examples = ", ".join(
            f"{name} {tuple(ours[name].shape)} (found: {tuple(theirs[name].shape) if name in theirs else 'missing'})"
            for name in missing[:NUM_NAMED]
        )
        raise WeightsError(
            f"{file} doesn't fit this backbone: {len(missing)} of its {len(ours)} tensors are missing or have another shape, "
            f"such as {examples}. Is it for another architecture?"
        )
    network.load_state_dict(fitting, strict=False)
    left = sorted((set(theirs) - set(fitting)) | (set(ours) - set(fitting)))
    summary = f"loaded {len(fitting)} of {len(ours)} tensors from {file.name}"
    return f"{summary}; not loaded: {', '.join(left[:NUM_NAMED])}{' ...' if len(left) > NUM_NAMED else ''}" if left else summary


def _rename(tensors: State, known: set[str]) -> State:
    """Strip known prefixes from the names where that makes more of them match."""
    present = [wrapper for wrapper in WRAPPERS if any(name.startswith(wrapper) for name in tensors)]
    stripped = [{name.removeprefix(wrapper): tensor for name, tensor in tensors.items()} for wrapper in present]
    return max([tensors, *(_rename(state, known) for state in stripped)], key=lambda state: len(known & set(state)))
