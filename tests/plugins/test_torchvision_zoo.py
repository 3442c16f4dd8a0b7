"""torchvision's models keep the contract, and their weights arrive safely or with one clear line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from automl_tl_torchvision import TorchvisionBackbone, backbones
from zoo_checks import check_whole_contract

BY_NAME = {backbone.card.name.partition("/")[2]: backbone for backbone in backbones()}

# (model, side of the images): each family, and each variant that is built in another way. As small as the network takes.
QUICK = (
    ("convnext_tiny", 64),
    ("densenet121", 64),
    ("efficientnet_b0", 64),
    ("efficientnet_v2_s", 64),
    ("googlenet", 64),
    ("inception_v3", 96),
    ("mnasnet0_5", 64),
    ("mnasnet1_3", 64),
    ("mobilenet_v2", 64),
    ("mobilenet_v3_large", 64),
    ("mobilenet_v3_small", 64),
    ("regnet_x_400mf", 64),
    ("regnet_y_400mf", 64),
    ("resnet18", 64),
    ("resnet50", 64),
    ("shufflenet_v2_x0_5", 64),
    ("shufflenet_v2_x2_0", 64),
    ("squeezenet1_0", 64),
    ("squeezenet1_1", 64),
    ("swin_t", 64),
    ("swin_v2_t", 64),
)
WIDE = (
    ("alexnet", 64),
    ("efficientnet_b3", 64),
    ("maxvit_t", 224),
    ("resnext50_32x4d", 64),
    ("vgg11", 64),
    ("vit_b_32", 224),
    ("wide_resnet50_2", 64),
)


@pytest.mark.parametrize(("model", "side_px"), [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in WIDE)])
def test_blocks_and_head_are_the_network(model: str, side_px: int, tmp_path: Path) -> None:
    check_whole_contract(BY_NAME[model], side_px, tmp_path)
