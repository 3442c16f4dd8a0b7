"""Build torchvision networks, with weights from torchvision's own loader, and one clear message if these are not available."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from automl_tl.errors import UnavailableWeightsError, WeightsError
from automl_tl_torchvision.cards import Entry

if TYPE_CHECKING:
    from torch import nn

CONNECT_TIMEOUT_S: Final = 10.0  # torch.hub sets none
# torchvision lets torch.load run any pickle; this variable, which torch.load reads, restricts it to tensors.
SAFE_LOADING: Final = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
# VGG-16's weights for detectors, the original Caffe ones as in Keras: those of the fully connected layers are NaN.
CONVOLUTIONS_ONLY: Final = "IMAGENET1K_FEATURES"
# The form of the pretrained networks, so that their weights fit, and torchvision's announced initialization: with the current
# one the features of a new network in eval mode are near zero.
AS_PRETRAINED: Final[dict[str, dict[str, Any]]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}


def build(entry: Entry, *, pretrained: bool) -> nn.Module:
    """Build the network of ``entry`` in eval mode; see ``Backbone.build``.

    Args:
        entry: model and weights.
        pretrained: whether to load the weights.

    Raises:
        WeightsError: the weights are not available, or the installed torchvision lacks the model.
    """
    from torchvision import models

    weights = _known_weights(entry)
    if not pretrained:
        return build_random(entry.model, entry.weights, entry.card.preprocessing.side_px)
    try:
        with _safe_loading():
            network: nn.Module = models.get_model(entry.model, weights=weights, progress=sys.stderr.isatty())
    except Exception as error:  # URLError, HTTPError, OSError, RuntimeError (wrong hash), UnpicklingError
        raise UnavailableWeightsError(entry.card.name, entry.path, entry.url, error) from error
    return _usable(network, entry.weights).eval()


def build_random(model: str, weights: str, side_px: int) -> nn.Module:
    """Build a network with random weights in eval mode.

    Args:
        model: torchvision's name.
        weights: name of the weights that the network is meant for.
        side_px: side of the images; only a ViT depends on it, by its position embedding.
    """
    from torchvision import models

    size = {"image_size": side_px} if model.startswith("vit_") else {}
    network: nn.Module = models.get_model(model, weights=None, **AS_PRETRAINED.get(model, {}), **size)
    return _usable(network, weights).eval()


def _usable(network: nn.Module, weights: str) -> nn.Module:
    """Return ``network``; with weights for its convolutions only, these and the mean over their maps."""
    from torch import nn

    if weights == CONVOLUTIONS_ONLY:
        network.avgpool, network.classifier = nn.AdaptiveAvgPool2d(1), nn.Sequential()
    return network


def _known_weights(entry: Entry) -> Any:  # noqa: ANN401  an untyped enum
    import torchvision

    try:
        return torchvision.models.get_model_weights(entry.model)[entry.weights]
    except (ValueError, KeyError) as error:
        raise WeightsError(
            f"The installed torchvision {torchvision.__version__} does not have the model {entry.model!r} with the weights "
            f"{entry.weights!r} of this card. Install a newer torchvision, or choose another backbone."
        ) from error


@contextmanager
def _safe_loading() -> Iterator[None]:
    """Set a timeout on sockets and restrict ``torch.load`` to tensors."""
    timeout, flag = socket.getdefaulttimeout(), os.environ.get(SAFE_LOADING)
    socket.setdefaulttimeout(CONNECT_TIMEOUT_S)
    os.environ[SAFE_LOADING] = "1"
    try:
        yield
    finally:
        socket.setdefaulttimeout(timeout)
        os.environ.pop(SAFE_LOADING)
        if flag is not None:
            os.environ[SAFE_LOADING] = flag
