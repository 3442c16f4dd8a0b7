"""Blocks and classifiers of timm networks. ``benchmarks/zoo_sweep.py`` covers every model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl_timm import backbones
from tests.plugins.network_checks import check_backbone, check_network

if TYPE_CHECKING:
    from torch import nn

BY_NAME = {backbone.card.name.partition("/")[2]: backbone for backbone in backbones()}
SMALL_VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
# Every adapter, every special rule for classifiers, and typical chains, on networks of a few thousand parameters.
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "Beit": ("beit", SMALL_VIT),
    "Beit with shared positions": ("beit", {**SMALL_VIT, "use_shared_rel_pos_bias": True}),
    "CrossVit": ("crossvit", {"img_size": 48, "embed_dim": (16, 32), "depth": ((1, 1, 0),), "num_heads": (2, 2)}),
    "DenseNet": ("densenet", {"growth_rate": 4, "block_config": (1, 1, 1, 1)}),
    "Eva": ("eva", SMALL_VIT),
    "Eva with rotary positions": ("eva", {**SMALL_VIT, "use_rot_pos_emb": True}),
    "Eva for any side": ("eva", {**SMALL_VIT, "use_rot_pos_emb": True, "dynamic_img_size": True}),
    "SwinTransformer": ("swin_transformer", {"img_size": 32, "patch_size": 2, "window_size": 2, "embed_dim": 16}),
    "VGG": ("vgg", {"cfg": [8, "M", 512, "M"], "mlp_ratio": 0.01}),
    "VisionTransformerDistilled": ("deit", SMALL_VIT),
}


@pytest.mark.parametrize("kind", SMALL)
def test_cut_composes_to_the_network(kind: str, tmp_path: Path) -> None:
    import torch

    from automl_tl_timm.encoders import classifier, cut

    torch.manual_seed(0)
    network = small_network(kind)

    check_network(network, cut(network), classifier(network), 48 if kind == "CrossVit" else 32, tmp_path)


def small_network(kind: str) -> nn.Module:
    from importlib import import_module

    module, options = SMALL[kind]
    network: nn.Module = getattr(import_module(f"timm.models.{module}"), kind.partition(" ")[0])(**options)
    return network.eval()


@pytest.mark.parametrize(
    ("model", "side_px"),
    [
        ("test_byobnet", 64),
        ("test_convnext", 64),
        ("test_efficientnet", 64),
        ("test_maxvit", 160),
        ("test_nfnet", 64),
        ("test_resnet", 64),
        ("test_vit", 160),
        ("efficientvit_m0", 224),  # names its linear layer, but not the norm before it
        ("mobilenetv3_small_050", 64),  # a convolution as classifier
        ("pit_ti_distilled_224", 224),  # its logits are not a function of its features
        ("regnetx_002", 64),
    ],
)
def test_backbone_keeps_the_contract(model: str, side_px: int, tmp_path: Path) -> None:
    import timm

    if not timm.is_model(model):
        pytest.skip(f"timm {timm.__version__} does not have {model} yet")
    check_backbone(BY_NAME[model], side_px, tmp_path)


def test_copied_blocks_share_nothing_with_the_network() -> None:
    import torch

    from automl_tl_timm.encoders import cut

    network = small_network("Eva with rotary positions")
    blocks = torch.nn.Sequential(*cut(network))

    copied = copy.deepcopy(blocks)

    own = {id(parameter) for parameter in network.parameters()}
    assert own.isdisjoint(id(parameter) for parameter in copied.parameters())
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(copied(images), blocks(images))
