"""checkpoints: every ResNet in a folder of safetensors files is a backbone, under the file's name.

``TL_CHECKPOINTS`` names the folder. A file's header (JSON at its start, read without torch) says all that the card needs:
shapes give depth, width and cost; its metadata may add ``side_px``, ``pretrained_on``, ``imagenet_top1`` and ``license``.
The network itself is in ``network.py``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from automl_tl.contracts import Backbone, BackboneCard, Preprocessing

from automl_tl_local_checkpoints.headers import Header, read_header

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FOLDER_VARIABLE", "LocalResNet", "backbones"]

FOLDER_VARIABLE = "TL_CHECKPOINTS"


@final
class LocalResNet(Backbone):
    """One file, whose tensors have torchvision's names."""

    def __init__(self, file: Path, header: Header) -> None:
        """Read nothing more: the header has been read."""
        self._file, self._header = file, header
        self._card = _card(file, header)

    @property
    def card(self) -> BackboneCard:
        """Facts, from the header."""
        return self._card

    def build(self, *, pretrained: bool) -> nn.Module:
        """The ResNet of this depth, with the file's weights or fresh ones."""
        from automl_tl_local_checkpoints.network import build

        return build(self._header, self._file if pretrained else None)

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """Stem, four stages, pooling."""
        from automl_tl_local_checkpoints.network import cut

        return cut(network)

    def classifier(self, network: nn.Module) -> nn.Module | None:
        """The layer that torchvision calls fc."""
        return network.get_submodule("fc")


def backbones() -> Sequence[Backbone]:
    """Every ``*.safetensors`` in the folder that holds a ResNet; of others, a line on stderr says why they are left out."""
    folder = os.environ.get(FOLDER_VARIABLE)
    found: list[Backbone] = []
    for file in sorted(Path(folder).expanduser().glob("*.safetensors")) if folder else ():
        try:
            found.append(LocalResNet(file, read_header(file)))
        except (OSError, ValueError) as error:
            logging.getLogger(__name__).warning("%s is left out: %s", file, error)
    return found


def _card(file: Path, header: Header) -> BackboneCard:
    said = header.metadata
    side_px = int(said.get("side_px", 224))
    top1 = said.get("imagenet_top1")
    return BackboneCard(
        name=f"checkpoints/{re.sub(r'[^A-Za-z0-9_.-]+', '_', file.stem)}",
        family="resnet",
        preprocessing=Preprocessing(side_px=side_px, interpolation="bilinear"),
        feature_dim=header.feature_dim,
        num_blocks=6,
        num_parameters=header.num_parameters,
        num_macs=header.num_macs(side_px),
        pretrained_on=said.get("pretrained_on", "not said"),
        imagenet_top1=float(top1) if top1 else None,
        license=said.get("license"),
        weights="file",
        weights_mib=round(file.stat().st_size / 2**20, 2),
        same_network_as=header.same_network_as,  # a model fitted on this still predicts where this package is missing
    )
