"""Backbones of the provider checkpoints: every ResNet in a folder of safetensors files, named after its file.

``TL_CHECKPOINTS`` is the folder. The card follows from a file's header, which is read without torch: shapes give depth, width
and cost; the metadata may add ``side_px``, ``pretrained_on``, ``imagenet_top1`` and ``license``. The network itself is in
``network.py``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl.contracts import Backbone, BackboneCard, Preprocessing

from automl_tl_local_checkpoints.headers import Header, read_header

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FOLDER_VARIABLE", "LocalResNet", "backbones"]

FOLDER_VARIABLE = "TL_CHECKPOINTS"


class LocalResNet(Backbone):
    """A checkpoint whose tensors have torchvision's names."""

    def __init__(self, file: Path, header: Header) -> None:
        """Keep the header; the tensors are read by ``build``."""
        self._file, self._header = file, header
        self._card = _card(file, header)

    @property
    def card(self) -> BackboneCard:
        """Metadata from the header."""
        return self._card

    def build(self, *, pretrained: bool) -> nn.Module:
        """Build the ResNet of this depth, with the file's weights or random ones."""
        from automl_tl_local_checkpoints.network import build

        return build(self._header, self._file if pretrained else None)

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """Return stem, four stages and pooling."""
        from automl_tl_local_checkpoints.network import cut

        return cut(network)

    def classifier(self, network: nn.Module) -> nn.Module | None:
        """Return the layer that torchvision calls fc."""
        return network.get_submodule("fc")


def backbones() -> Sequence[Backbone]:
    """Return a backbone for every ``*.safetensors`` file with a ResNet; a warning names each skipped file."""
    folder = os.environ.get(FOLDER_VARIABLE)
    checkpoints: list[Backbone] = []
    for file in sorted(Path(folder).expanduser().glob("*.safetensors")) if folder else ():
        try:
            checkpoints.append(LocalResNet(file, read_header(file)))
        except (OSError, ValueError) as error:
            logging.getLogger(__name__).warning("%s is skipped: %s", file, error)
    return checkpoints


def _card(file: Path, header: Header) -> BackboneCard:
    metadata = header.metadata
    side_px = int(metadata.get("side_px", 224))
    top1 = metadata.get("imagenet_top1")
    return BackboneCard(
        name=f"checkpoints/{re.sub(r'[^A-Za-z0-9_.-]+', '_', file.stem)}",
        family="resnet",
        preprocessing=Preprocessing(side_px=side_px, interpolation="bilinear"),
        feature_dim=header.feature_dim,
        num_blocks=6,
        num_parameters=header.num_parameters,
        num_macs=header.num_macs(side_px),
        pretrained_on=metadata.get("pretrained_on", "unknown"),
        imagenet_top1=float(top1) if top1 else None,
        license=metadata.get("license"),
        weights="file",
        weights_mib=round(file.stat().st_size / 2**20, 2),
        same_network_as=header.same_network_as,  # models still predict where this package is missing
    )
