"""Untrained models for exports, each built once per process: of the toy network, and of networks of libraries."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from automl_tl.models.bundle import BundleFacts, Classifier, build_encoder
from automl_tl.models.heads import HeadShape, build_head
from automl_tl.plugin_host import discover
from automl_tl.testing import ToyBackbone
from automl_tl.values import Preprocessing

CLASSES = ("ant", "bee", "t\u00fclip \u2603 <b>|")


@cache
def toy_classifier(kind: str = "solved", **head: int | tuple[int, ...]) -> Classifier:
    """A model of three blocks.

    Args:
        kind: of the head.
        head: other fields of its shape.
    """
    torch.manual_seed(0)
    backbone = ToyBackbone()
    encoder = nn.Sequential(*backbone.cut(backbone.build(pretrained=True))).eval()
    return _classifier(encoder, "toy/three_blocks", backbone.card.preprocessing, _shape(kind, 32, head), spread=2)


@cache
def library_classifier(backbone: str, kind: str = "trained", **head: int | tuple[int, ...]) -> Classifier:
    """A model of 64 pixels on an installed backbone with random weights.

    Args:
        backbone: its name.
        kind: of the head.
        head: other fields of its shape.
    """
    torch.manual_seed(0)
    entry = discover().backbone(backbone)
    encoder = build_encoder(entry, pretrained=False)
    preprocessing = Preprocessing(side_px=64, crop_fraction=0.9)
    classifier = _classifier(encoder, backbone, preprocessing, _shape(kind, entry.card.feature_dim, head), spread=0.3)
    facts = classifier.facts.model_copy(update={"same_network_as": entry.card.same_network_as})
    return Classifier(encoder, classifier.head, facts)


def _shape(kind: str, feature_dim: int, head: dict[str, int | tuple[int, ...]]) -> HeadShape:
    return HeadShape.model_validate({"kind": kind, "feature_dim": feature_dim, "num_classes": len(CLASSES), **head})


def _classifier(
    encoder: nn.Module, backbone: str, preprocessing: Preprocessing, shape: HeadShape, *, spread: float
) -> Classifier:
    head = build_head(shape).eval()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=spread)
    facts = BundleFacts(
        classes=CLASSES,
        preprocessing=preprocessing,
        backbone=backbone,
        backbone_from="tests 0",
        strategy="linear_probe",
        head=shape,
        temperature=1.7,
    )
    return Classifier(encoder, head, facts)
