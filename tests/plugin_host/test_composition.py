"""Blocks that do not compute what their network computes are an error, found once per version of the library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from automl_tl.contracts import Backbone, BackboneCard, Preprocessing
from automl_tl.errors import PluginFailedError
from automl_tl.models.bundle import build_encoder
from automl_tl.plugin_host import LoadedBackbone, PluginEntry
from automl_tl.plugin_host.composition import libraries_of
from automl_tl.runtime.paths import cache_dir
from automl_tl.testing import backbone_checks

ENTRY = PluginEntry(kind="backbones", name="zoo", distribution="tl-zoo", version="2.1", entry_point="zoo:backbones")


class Network(nn.Module):
    """A network of a library; a later release scales its features, which ``cut`` does not know."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)
        self.scale, self.num_calls = scale, 0

    def forward(self, images: Tensor) -> Tensor:
        self.num_calls += 1
        logits: Tensor = self.head(self.scale * self.pool(self.conv(images)).flatten(1))
        return logits


class Zoo(Backbone):
    """Cuts ``Network`` as its first release computes."""

    def __init__(self, scale: float = 1.0, *, blank_head: bool = False) -> None:
        self.network = Network(scale).eval()
        if blank_head:
            nn.init.zeros_(self.network.head.weight)
            nn.init.zeros_(self.network.head.bias)

    @property
    def card(self) -> BackboneCard:
        return BackboneCard(name="zoo/net", family="zoo", preprocessing=Preprocessing(side_px=8), feature_dim=8, num_blocks=2)

    def build(self, *, pretrained: bool) -> nn.Module:
        return self.network

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        return [self.network.conv, nn.Sequential(self.network.pool, nn.Flatten())]

    def classifier(self, network: nn.Module) -> nn.Module | None:
        return self.network.head


def checks() -> list[Path]:
    return list((cache_dir() / "checks").glob("*.json"))


def test_composition_is_compared_once_per_version_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = Zoo()

    for _ in range(3):
        build_encoder(LoadedBackbone(ENTRY, zoo), pretrained=True)
    assert (zoo.network.num_calls, len(checks())) == (1, 1)
    monkeypatch.setattr(torch, "__version__", "99.0")
    build_encoder(LoadedBackbone(ENTRY, zoo), pretrained=True)
    assert (zoo.network.num_calls, len(checks())) == (2, 2)


def test_composition_that_changed_names_backbone_and_library() -> None:
    with pytest.raises(
        PluginFailedError, match=rf"tl-zoo 2\.1.*zoo/net.*with torch {re.escape(torch.__version__)} its blocks"
    ) as caught:
        build_encoder(LoadedBackbone(ENTRY, Zoo(scale=1.5)), pretrained=True)

    assert "Install another version" in str(caught.value)
    assert checks() == []


def test_composition_of_a_blank_head_proves_nothing() -> None:
    build_encoder(LoadedBackbone(ENTRY, Zoo(scale=1.5, blank_head=True)), pretrained=False)

    assert checks() == []


def test_composition_leaves_the_random_generator_alone() -> None:
    backbone = LoadedBackbone(ENTRY, Zoo())
    torch.manual_seed(4)
    expected = torch.rand(3)

    torch.manual_seed(4)
    build_encoder(backbone, pretrained=True)

    assert torch.equal(torch.rand(3), expected)


def test_conformance_checks_compare_the_composition() -> None:
    zoo = Zoo(scale=1.5)
    plugin: Any = SimpleNamespace(backbone=zoo, built=(zoo.network, zoo.cut(zoo.network)))

    with pytest.raises(AssertionError, match="logits differ"):
        backbone_checks.check_classifier(plugin)


def test_libraries_of_names_every_package_of_the_modules() -> None:
    from torchvision.models import resnet18

    assert [name.split()[0] for name in libraries_of(resnet18()).split(", ")] == ["torch", "torchvision"]
