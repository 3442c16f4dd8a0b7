"""Every model of ``keras.applications`` as a backbone. Importing this package imports neither keras nor torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.contracts import Backbone, BackboneCard
from automl_tl.errors import MissingExtraError
from automl_tl_keras.cards import Entry, entries

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["KerasBackbone", "backbones"]


class KerasBackbone(Backbone):
    """A model of ``keras.applications``, computed by torch's own layers."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    @property
    def card(self) -> BackboneCard:
        """Metadata of the model."""
        return self._entry.card

    def build(self, *, pretrained: bool) -> nn.Module:
        """Build the model with Keras and translate it."""
        from automl_tl_keras.loading import build

        return build(self._entry, pretrained=pretrained)

    def cut(self, network: Any) -> Sequence[nn.Module]:  # noqa: ANN401  a KerasNetwork
        """Split the network where a single tensor crosses."""
        from automl_tl_keras.encoders import cut

        return cut(network)

    def classifier(self, network: Any) -> nn.Module | None:  # noqa: ANN401  a KerasNetwork
        """Return what follows the pooled features; ``None`` for VGG, whose classifier does not read them."""
        from automl_tl_keras.encoders import classifier

        return classifier(network)

    def read_weights(self, network: Any, file: Path) -> Mapping[str, Tensor] | None:  # noqa: ANN401  a KerasNetwork
        """Read a file that Keras wrote."""
        from automl_tl_keras.loading import SUFFIXES, read_weights

        return read_weights(network, file) if file.suffix in SUFFIXES else None


def backbones() -> Sequence[Backbone]:
    """Return every model.

    Raises:
        MissingExtraError: keras is not installed.
    """
    if find_spec("keras") is None:
        raise MissingExtraError("keras", "pip install 'automl-tl[keras]'")
    return [KerasBackbone(entry) for entry in entries()]
