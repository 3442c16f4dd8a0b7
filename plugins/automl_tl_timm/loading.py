"""Building a timm network, with weights through timm's own loader, and one clear line when they can't be had.

Never slower than it must be without a network: what is cached is loaded from its file (the hub client would first ask the
hub for news, and retry for most of a minute), what isn't is asked for once before the client's own retries begin.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from automl_tl.errors import WeightsError
from automl_tl_timm.caches import HUB_FILES, newest_hub_file
from automl_tl_timm.cards import Entry, Source

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build"]

# torch.hub gives urlopen no timeout, so a host that swallows packets would hold us for minutes.
CONNECT_TIMEOUT_S: Final = 10.0


def build(entry: Entry, *, pretrained: bool) -> nn.Module:
    """The network of ``entry`` in eval mode; see ``Backbone.build``."""
    _check_known(entry)
    if not pretrained:
        return _create(entry)
    if not entry.source:
        raise WeightsError(f"{entry.card.name} has no pretrained weights in timm. Pass --weights FILE, or --weights none.")
    cached = _cached_file(entry.source)
    try:
        if cached:
            return _create(entry, pretrained=True, overlay=_from_file(entry.source, cached))
        with _patience():
            _ask_hub(entry.source)
            return _create(entry, pretrained=True)
    except Exception as error:  # any of four libraries' errors, and sockets'; the cause is chained and named
        raise _unavailable(entry, cached, error) from error


def _create(entry: Entry, *, pretrained: bool = False, overlay: dict[str, Any] | None = None) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(entry.model, pretrained=pretrained, pretrained_cfg_overlay=overlay)
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
        f"The installed timm {timm.__version__} doesn't know {entry.model!r}, which the table of cards names. "
        "Install the timm that the table was made with, or choose another backbone (`tl plugins backbones`)."
    )


def _cached_file(source: Source) -> Path | None:
    if source.hub:
        return newest_hub_file(source.hub, (source.filename,) if source.filename else HUB_FILES)
    return source.path if source.path.is_file() else None


def _from_file(source: Source, path: Path) -> dict[str, Any]:
    # A model with a loader of its own needs it for its authors' file; what the hub keeps is timm's own format.
    return {"file": str(path), "custom_load": False} if source.hub else {"file": str(path)}


def _ask_hub(source: Source) -> None:
    """One question without retries; raises when the hub can't be reached or doesn't know the repository."""
    if not source.hub:
        return
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    repository, _, revision = source.hub.partition("@")
    url = hf_hub_url(repository, source.filename or HUB_FILES[0], revision=revision or None)
    try:
        get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except LocalEntryNotFoundError:
        raise
    except RemoteEntryNotFoundError:
        return  # reachable; timm then asks for the other name


@contextmanager
def _patience() -> Iterator[None]:
    """Sockets time out, and what the libraries print goes to stderr: stdout is the result of a command."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT_S)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _unavailable(entry: Entry, cached: Path | None, error: Exception) -> WeightsError:
    reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0][:200]}"
    if cached:
        return WeightsError(
            f"The weights of {entry.card.name} in {cached} can't be loaded ({reason}). "
            "Delete the file to download it again, or pass --weights FILE, or --weights none."
        )
    return WeightsError(
        f"The weights of {entry.card.name} can't be had from {entry.source.address} ({reason}) and are "
        f"not in {entry.source.path}. Download them elsewhere and pass --weights FILE, or --weights none."
    )
