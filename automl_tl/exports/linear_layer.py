"""One linear layer in place of a model's head, because networks of timm end in one.

A trained linear head and its temperature become the layer exactly. A closed-form head works on features of unit length, which
no linear layer computes: it is folded with their mean length. Where that changes too many labels, the head is distilled on
training images, as are heads with hidden layers and those on features that the network alone does not have (multi-level
features, ensembles). What this changes is measured from files, and the card says it (decision 60).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from automl_tl.errors import ModelError
from automl_tl.models.bundle import Classifier
from automl_tl.models.engines import Normalize, load_pixels
from automl_tl.models.heads import ClosedFormHead, TrainedHead
from automl_tl.plugin_host import Catalog, LoadedBackbone
from automl_tl.plugin_host.ensemble import FeatureConcatenation
from automl_tl.plugin_host.isolation import LEVELS, PLUS
from automl_tl.plugin_host.levels import LevelConcatenation
from automl_tl.values import Preprocessing

Folding = Literal["exact", "mean_length", "distilled"]
ELSEWHERE: Final = "The formats onnx, openvino and torch-export support every model."
TIMM: Final = "timm/"
MIN_PROBABILITY: Final = 1e-4  # its logarithm is as low as logits get, so that sure images do not outweigh the others
STRENGTHS: Final = np.logspace(-2, 5, 15)  # of ridge regression on features whose mean variance is 1
MIN_DISTILLED: Final = 20  # images
MIN_FOLDED: Final = 0.9  # equal labels; random weights give features of nearly one direction, where the length says much


@dataclass(frozen=True)
class TimmNetwork:
    """The network of timm that has the tensors of a model's encoder, or of one member of it."""

    backbone: LoadedBackbone
    encoder: nn.Module  # the model's blocks of this network
    preprocessing: Preprocessing
    is_whole: bool  # its features are those that the head works on


@dataclass(frozen=True)
class LinearLayer:
    """Weight ``(C, D)`` and bias ``(C,)`` from features to logits."""

    weight: Tensor
    bias: Tensor
    folding: Folding

    def probabilities(self, features: Tensor) -> Tensor:
        """Map features ``(B, D)`` to probabilities ``(B, C)``."""
        return torch.softmax(features @ self.weight.T + self.bias, dim=1)


def find_timm_network(classifier: Classifier, catalog: Catalog) -> TimmNetwork:
    """Find the network of timm for a model; for an ensemble, that of its first member that timm has.

    Args:
        classifier: to export.
        catalog: of the installed backbones.

    Raises:
        ModelError: timm has none.
    """
    facts = classifier.facts
    members = facts.backbone.split(PLUS)
    for index, member in enumerate(members):
        name = member.removesuffix(LEVELS)
        known = catalog.backbones.get(name)
        same = (*facts.same_network_as, *(known.card.same_network_as if known else ()), TIMM + name.partition("/")[2])
        timm_name = next((other for other in (name, *same) if other.startswith(TIMM) and other in catalog.backbones), None)
        if timm_name is None:
            continue
        encoder = classifier.encoder
        first = next(iter(encoder.children()), None)
        preprocessing = facts.preprocessing
        if isinstance(first, FeatureConcatenation):
            encoder, preprocessing = first.encoders[index], catalog.backbone(name).card.preprocessing
            first = next(iter(encoder.children()), None)
        if isinstance(first, LevelConcatenation):
            encoder = first.levels.blocks
        return TimmNetwork(catalog.backbone(timm_name), encoder, preprocessing, is_whole=encoder is classifier.encoder)
    raise ModelError(f"timm has no network with the weights of {facts.backbone}. {ELSEWHERE}")


def features_of(encoder: nn.Module, preprocessing: Preprocessing, files: Iterable[bytes]) -> Tensor:
    """Features ``(N, D)`` of image files, decoded and resized as by ``tl predict``.

    Args:
        encoder: normalized images to features.
        preprocessing: of the images.
        files: contents of image files.
    """
    normalize, features = Normalize(preprocessing), []
    with torch.inference_mode():
        for data in files:
            pixels = load_pixels(data, preprocessing)
            features.append(encoder(normalize(torch.from_numpy(pixels.copy())[None])))
    return torch.cat(features)


def make_linear_layer(
    classifier: Classifier, network: TimmNetwork, features: Tensor, training: Iterable[bytes] = ()
) -> LinearLayer:
    """Return the linear layer that takes the place of the model's head.

    Args:
        classifier: to export.
        network: whose last layer it becomes.
        features: ``(N, D)``, of any images by the network; their mean length is used, and folding is judged on them.
        training: contents of image files to distill on, read only if that is necessary.

    Raises:
        ModelError: the head can only be distilled, and there are too few training images.
    """
    head, temperature = classifier.head, classifier.facts.temperature
    if network.is_whole and isinstance(head, TrainedHead) and not len(head.hidden):
        return LinearLayer(head.last.weight.detach() / temperature, head.last.bias.detach() / temperature, "exact")
    folded = None
    if network.is_whole and isinstance(head, ClosedFormHead):
        folded = _fold(head, temperature, float(features.norm(dim=1).mean()))
        same = folded.probabilities(features).argmax(dim=1) == classifier.probabilities(features).argmax(dim=1)
        if same.float().mean() >= MIN_FOLDED:
            return folded
    files = list(training)
    if len(files) < MIN_DISTILLED:
        if folded is not None:
            return folded
        raise ModelError(
            f"Networks of timm end in one linear layer, which this model's head is not: {_reason(classifier)}. It can be "
            f"distilled on training images, and {len(files)} of them were found: name the images of its fit with "
            f"`--training-images`. {ELSEWHERE}"
        )
    taught = classifier.probabilities(features_of(classifier.encoder, classifier.facts.preprocessing, files))
    return _distill(features_of(network.encoder, network.preprocessing, files), taught)


def _reason(classifier: Classifier) -> str:
    facts = classifier.facts
    if facts.head.hidden_dims:
        return f"it has hidden layers ({', '.join(map(str, facts.head.hidden_dims))})"
    return "it works on several networks" if PLUS in facts.backbone else "it works on multi-level features"


def _fold(head: ClosedFormHead, temperature: float, mean_length: float) -> LinearLayer:
    # 1) Standardization and the temperatures of the linear maps fold exactly.
    weights = head.weight.detach() / (head.scale * head.temperatures[:, None, None])
    biases = head.bias.detach() / head.temperatures[:, None] - torch.einsum("kcd,d->kc", weights, head.mean)
    # 2) The mean of the logits stands for the mean of the probabilities, and the mean length for that of each image.
    return LinearLayer(weights.mean(dim=0) / (mean_length * temperature), biases.mean(dim=0) / temperature, "mean_length")


def _distill(features: Tensor, probabilities: Tensor) -> LinearLayer:
    """Ridge regression from features ``(N, D)`` to the logits of the model, its strength chosen by exact leave-one-out."""
    from sklearn.linear_model import RidgeCV

    logits = np.log(np.maximum(probabilities.double().numpy(), MIN_PROBABILITY))
    logits -= logits.mean(axis=1, keepdims=True)
    rows = features.double().numpy()
    scale = float((rows - rows.mean(axis=0)).std()) or 1.0
    ridge = RidgeCV(alphas=STRENGTHS).fit(rows / scale, logits)
    weight, bias = np.asarray(ridge.coef_) / scale, np.asarray(ridge.intercept_)
    return LinearLayer(torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), "distilled")
