"""Bundled EfficientNet-Lite networks against timm's."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import automl_tl_lite
from automl_tl.contracts import Backbone

BACKBONES = list(automl_tl_lite.backbones())
IDS = [backbone.card.name for backbone in BACKBONES]


@pytest.mark.parametrize("backbone", BACKBONES, ids=IDS)
def test_lite_networks_equal_timm(backbone: Backbone) -> None:
    ours = backbone.build(pretrained=True)
    theirs = timm.create_model("tf_" + backbone.card.name.partition("/")[2]).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 96, 97, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("backbone", BACKBONES, ids=IDS)
def test_lite_blocks_and_classifier_compose_to_network(backbone: Backbone) -> None:
    network = backbone.build(pretrained=True)
    blocks = nn.Sequential(*backbone.cut(network))
    classifier = backbone.classifier(network)
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        features = blocks(images)

    assert classifier is not None
    assert features.shape == (2, backbone.card.feature_dim)
    assert len(blocks) == backbone.card.num_blocks
    assert torch.equal(classifier(features), network(images))


@pytest.mark.parametrize("backbone", BACKBONES, ids=IDS)
def test_lite_cards_count_parameters(backbone: Backbone) -> None:
    network = backbone.build(pretrained=False)

    assert sum(parameter.numel() for parameter in network.parameters()) == backbone.card.num_parameters


def test_lite_pretrained_weights_are_packaged_and_deterministic() -> None:
    first, second = (BACKBONES[0].build(pretrained=True).state_dict() for _ in range(2))

    assert BACKBONES[0].card.weights == "package"
    assert all(torch.equal(first[name], second[name]) for name in first)
