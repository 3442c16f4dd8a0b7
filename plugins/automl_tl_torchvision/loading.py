"""Building a torchvision network, with weights through torchvision's own loader, and one clear line when they can't be had."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, Final

from automl_tl.errors import WeightsError
from automl_tl_torchvision.caches import torch_checkpoints
from automl_tl_torchvision.cards import Entry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "build_random"]

# torch.hub gives urlopen no timeout, so a host that swallows packets would hold us for minutes.
CONNECT_TIMEOUT_S: Final = 10.0
# torchvision asks torch.load for everything that pickle can do; this variable, which torch.load reads, allows tensors only.
SAFE_LOADING: Final = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
# What the pretrained forms of these two have, so that anybody's weights for them meet the same input and the same names. And
# the usual initialization, which torchvision announces: with their own, features of a fresh network in eval mode are near zero.
AS_PRETRAINED: Final[dict[str, dict[str, Any]]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}


def build(entry: Entry, *, pretrained: bool) -> nn.Module:
    """The network of ``entry`` in eval mode; see ``Backbone.build``."""
    from torchvision import models

    weights = _known_weights(entry)
    if not pretrained:
        return build_random(entry.model, entry.card.preprocessing.side_px)
    try:
        with _careful_loading():
            network: nn.Module = models.get_model(entry.model, weights=weights, progress=sys.stderr.isatty())
    except Exception as error:  # URLError, HTTPError, OSError, RuntimeError (wrong hash), UnpicklingError; the cause is chained
        raise _unavailable(entry, error) from error
    return network.eval()


def build_random(model: str, side_px: int) -> nn.Module:
    """``model`` freshly initialized, in eval mode; ``side_px`` matters to a ViT only, whose positions it decides."""
    from torchvision import models

    sized = {"image_size": side_px} if model.startswith("vit_") else {}
    network: nn.Module = models.get_model(model, weights=None, **AS_PRETRAINED.get(model, {}), **sized)
    return network.eval()


def _known_weights(entry: Entry) -> Any:  # noqa: ANN401  an enum of torchvision's, which has no types
    import torchvision

    try:
        return torchvision.models.get_model_weights(entry.model)[entry.weights]
    except (ValueError, KeyError) as error:
        raise WeightsError(
            f"The installed torchvision {torchvision.__version__} doesn't know {entry.model!r} with the weights "
            f"{entry.weights!r}, which the table of cards names. Install a newer torchvision, or choose another backbone."
        ) from error


@contextmanager
def _careful_loading() -> Iterator[None]:
    """Sockets time out, files are read as tensors only, and what torch.hub prints goes to stderr: stdout is the result."""
    timeout, flag = socket.getdefaulttimeout(), os.environ.get(SAFE_LOADING)
    socket.setdefaulttimeout(CONNECT_TIMEOUT_S)
    os.environ[SAFE_LOADING] = "1"
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(timeout)
        os.environ.pop(SAFE_LOADING)
        if flag is not None:
            os.environ[SAFE_LOADING] = flag


def _unavailable(entry: Entry, error: Exception) -> WeightsError:
    reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0][:200]}"
    path = torch_checkpoints() / entry.filename
    if path.exists():
        return WeightsError(
            f"The weights of {entry.card.name} in {path} can't be loaded ({reason}). "
            "Delete the file to download it again, or pass --weights FILE, or --weights none."
        )
    return WeightsError(
        f"The weights of {entry.card.name} can't be had from {entry.url} ({reason}) and are not in {path}. "
        "Download them elsewhere and pass --weights FILE, or --weights none."
    )
