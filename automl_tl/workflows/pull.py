"""Pull: download pretrained weights beforehand, so that later fits consider them without a network."""

from __future__ import annotations

from automl_tl.plugin_host import discover
from automl_tl.plugin_host.downloads import download, pretrained_weights
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import PretrainedWeights


def pull(*backbones: str, progress: Progress = QUIET) -> list[PretrainedWeights]:
    """Download the weights of backbones that are not on this machine; return their origin, digest and license.

    Args:
        backbones: names, such as ``timm/convnext_nano.in12k_ft_in1k``.
        progress: receives progress.

    Raises:
        UnknownBackboneError: no installed plugin provides one of them; nothing is downloaded.
        WeightsError: weights are not available; those before are on this machine.
    """
    catalog = discover()
    loaded = [catalog.backbone(name) for name in backbones]
    for backbone in loaded:
        if backbone.card.hub:
            download(backbone.card, progress=progress)
        else:  # downloaded by the library's own loader
            with backbone.error_boundary("was downloaded"):
                backbone.build(pretrained=True)
    return [pretrained_weights(backbone.card) for backbone in loaded]
