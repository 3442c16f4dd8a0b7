"""Multi-level features: the backbone's own and pooled outputs of its last blocks, from one pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from automl_tl.errors import PluginError
from automl_tl.models.bundle import BundleFacts, Classifier, build_encoder, load_bundle, save_bundle
from automl_tl.models.heads import HeadShape, build_head
from automl_tl.plugin_host import LoadedBackbone, discover
from automl_tl.plugin_host.ensemble import FeatureConcatenation
from automl_tl.plugin_host.levels import LevelConcatenation, PooledLevels, multi_level, parts_of
from automl_tl.testing.toy_task import ToyBackbone
from tests.planning.fake_plugins import catalog_of

LEVELS = "lite/efficientnet_lite0:levels"


class Reshape(nn.Module):
    """Images to a tensor of another layout, then to features."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to the layout."""
        tokens = images.flatten(2).transpose(1, 2)
        if self.layout == "tokens":
            return torch.cat([tokens[:, :1] * 0 + 100, tokens], dim=1)  # a class token in front
        return images.permute(0, 2, 3, 1) if self.layout == "channels last" else images


class MeanOfThree(nn.Module):
    """Features that do not depend on the level before."""

    def forward(self, level: Tensor) -> Tensor:
        """Map anything to ``(B, 3)``."""
        return torch.ones(len(level), 3)


def toy() -> LoadedBackbone:
    return catalog_of([ToyBackbone()], []).backbone("toy/three_blocks")


@pytest.mark.parametrize("layout", ["channels first", "channels last", "tokens"])
def test_pooled_levels_are_mean_deviation_and_quarters_in_every_layout(layout: str) -> None:
    images = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    pooled = PooledLevels(nn.Sequential(Reshape(layout), MeanOfThree()))

    mean, deviation, grid, features = pooled.parts(images)

    assert torch.allclose(mean, images.mean(dim=(2, 3)), atol=1e-6)
    assert torch.allclose(deviation, images.flatten(2).std(dim=2, correction=0), atol=1e-4)
    quarters = functional.adaptive_avg_pool2d(images, 2).permute(0, 2, 3, 1).flatten(1)
    assert torch.allclose(grid, quarters, atol=1e-6)
    assert torch.equal(features, torch.ones(2, 3))


def test_multi_level_ends_with_the_features_of_the_backbone_bit_for_bit() -> None:
    backbone = toy()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    own = build_encoder(backbone, pretrained=True)
    multi = build_encoder(multi_level(backbone), pretrained=True)
    concatenation = multi[0]
    assert isinstance(concatenation, LevelConcatenation)

    with torch.no_grad():
        features, parts, scaled = own(images), concatenation.levels(images), multi(images)

    width = backbone.card.feature_dim
    assert torch.equal(parts[:, -width:], features)
    assert scaled.shape == (3, multi_level(backbone).card.feature_dim)
    assert torch.allclose(torch.stack([part.norm(dim=1) for part in scaled.split(concatenation.sizes, dim=1)]), torch.ones(1))
    assert np.allclose(concatenation.scale_in_place(parts.numpy().copy()), scaled.numpy(), atol=1e-6)


def test_multi_level_features_can_be_trained_where_a_channel_is_constant() -> None:
    block = nn.Conv2d(3, 4, 1)
    pooled = PooledLevels(nn.Sequential(block, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())))

    pooled(torch.zeros(1, 3, 8, 8)).sum().backward()

    assert block.weight.grad is not None
    assert torch.isfinite(block.weight.grad).all()


def test_multi_level_leaves_the_random_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)

    torch.manual_seed(5)
    multi_level(toy())

    assert torch.equal(torch.rand(1), expected)


def test_multi_level_of_a_single_block_names_the_backbone() -> None:
    catalog = discover()

    with pytest.raises(PluginError, match="efficientnet_lite0"):
        catalog.backbone("lite/efficientnet_lite0:levels:levels")


def test_parts_of_an_ensemble_are_those_of_its_members() -> None:
    backbone = multi_level(toy())
    encoder = build_encoder(backbone, pretrained=True)
    preprocessing = backbone.card.preprocessing
    pair = FeatureConcatenation([encoder, encoder], [preprocessing] * 2, preprocessing)
    mixed = FeatureConcatenation([encoder, nn.Identity()], [preprocessing] * 2, preprocessing)

    assert isinstance(encoder[0], LevelConcatenation)
    assert parts_of(encoder) == (encoder[0].sizes,)
    assert parts_of(nn.Sequential(pair)) == (encoder[0].sizes, encoder[0].sizes)
    assert parts_of(nn.Sequential(mixed)) == ()


def test_catalog_finds_multi_level_features_that_a_bundle_loads_again(tmp_path: Path) -> None:
    catalog = discover()
    backbone = catalog.backbone(LEVELS)
    card = backbone.card
    shape = HeadShape(kind="solved", feature_dim=card.feature_dim, num_classes=2)
    facts = BundleFacts(
        classes=("a", "b"),
        preprocessing=card.preprocessing,
        backbone=card.name,
        backbone_from="automl-tl",
        strategy="linear_probe",
        head=shape,
        temperature=1.0,
    )
    saved = Classifier(build_encoder(backbone, pretrained=True), build_head(shape).eval(), facts)

    encoder_file, head_file, _ = save_bundle(tmp_path, saved)
    loaded = load_bundle(encoder_file, head_file, catalog)

    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert (card.name, card.feature_dim) == (LEVELS, 5504)
    with torch.no_grad():
        assert torch.equal(loaded.encoder(images), saved.encoder(images))
