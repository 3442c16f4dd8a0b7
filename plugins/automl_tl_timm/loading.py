"""Build timm networks, with weights from timm's own loader, and one clear message if these are not available.

Cached weights are loaded from their file, since the hub client would first contact the hub. Other weights are requested
once without retries, because the client's own retries take most of a minute without a network.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from automl_tl.errors import WeightsError
from automl_tl_timm.cards import Entry, Source

if TYPE_CHECKING:
    from torch import nn

CONNECT_TIMEOUT_S: Final = 10.0  # torch.hub sets none


def build(entry: Entry, *, pretrained: bool) -> nn.Module:
    """Build the network of ``entry`` in eval mode; see ``Backbone.build``.

    Args:
        entry: model and source of its weights.
        pretrained: whether to load the weights.

    Raises:
        WeightsError: the weights are not available, or the installed timm lacks the model.
    """
    _check_known(entry)
    if not pretrained:
        return _create(entry)
    if not entry.source:
        raise WeightsError(f"{entry.card.name} has no pretrained weights in timm. Pass --weights FILE, or --weights none.")
    cached = _cached_file(entry.source)
    try:
        if cached:
            # timm's loaders for the formats of other authors do not apply to files from the hub, which are timm's own.
            return _create(entry, {"file": str(cached), **({"custom_load": False} if entry.source.hub else {})})
        with _socket_timeout():
            _contact_hub(entry.source)
            return _create(entry, {})
    except Exception as error:  # raised by any of four libraries or a socket
        raise _unavailable(entry, cached, error) from error


def _create(entry: Entry, weights: dict[str, Any] | None = None) -> nn.Module:
    """Build the network; ``weights``: changes to timm's configuration of the weights, ``None`` for random weights."""
    import timm

    network: nn.Module = timm.create_model(entry.model, pretrained=weights is not None, pretrained_cfg_overlay=weights)
    return network.float().eval()


def _check_known(entry: Entry) -> None:
    import timm

    try:
        if timm.is_model(entry.model):
            timm.models.get_pretrained_cfg(entry.model)
            return
    except RuntimeError:
        pass
    raise WeightsError(
        f"The installed timm {timm.__version__} does not have the model {entry.model!r} of this card. "
        "Install a newer timm, or choose another backbone (`tl plugins backbones`)."
    )


def _cached_file(source: Source) -> Path | None:
    if not source.hub:
        return source.path if source.path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = source.hub.partition("@")
    paths = (try_to_load_from_cache(repository, name, revision=revision or None) for name in source.filenames)
    return next((Path(path) for path in paths if isinstance(path, str)), None)


def _contact_hub(source: Source) -> None:
    """Send one request without retries; raises if the hub is unreachable or lacks the repository."""
    if not source.hub:
        return
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError

    repository, _, revision = source.hub.partition("@")
    url = hf_hub_url(repository, source.filenames[0], revision=revision or None)
    with suppress(RemoteEntryNotFoundError):  # reachable; timm then asks for the other file
        get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)


@contextmanager
def _socket_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _unavailable(entry: Entry, cached: Path | None, error: Exception) -> WeightsError:
    reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0][:200]}"
    if cached:
        return WeightsError(
            f"Cannot load the weights of {entry.card.name} from {cached} ({reason}). "
            "Delete the file to download it again, or pass --weights FILE, or --weights none."
        )
    return WeightsError(
        f"Cannot download the weights of {entry.card.name} from {entry.source.address} ({reason}), and they are not in "
        f"{entry.source.path}. Download them elsewhere and pass --weights FILE, or --weights none."
    )
