"""Exports to timm and torchvision, with the names and the network of the library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from automl_tl.exports import ExportReference, export_model
from automl_tl.models.bundle import BundleFacts, Classifier, build_encoder
from automl_tl.models.heads import HeadShape, build_head
from automl_tl.plugin_host import discover
from automl_tl.values import Preprocessing


def fitted(backbone: str, kind: str) -> Classifier:
    torch.manual_seed(0)
    entry = discover().backbone(backbone)
    encoder = build_encoder(entry, pretrained=False)
    shape = HeadShape.model_validate({"kind": kind, "feature_dim": entry.card.feature_dim, "num_classes": 3})
    head = build_head(shape)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    facts = BundleFacts(
        classes=("ant", "bee", "tulip"),
        preprocessing=Preprocessing(side_px=64),
        backbone=backbone,
        backbone_from="tests 0",
        strategy="linear_probe",
        head=shape,
        temperature=1.3,
    )
    return Classifier(encoder, head.eval(), facts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "kind"),
    [
        ("torchvision/resnet18", "solved"),
        ("torchvision/mobilenet_v3_small", "trained"),
        ("timm/resnet18", "trained"),
        ("timm/mobilenetv3_small_050", "solved"),
    ],
)
def test_export_to_library_predicts_the_same_in_new_process(backbone: str, kind: str, tmp_path: Path) -> None:
    classifier = fitted(backbone, kind)
    raw_images = [np.random.default_rng(seed).integers(0, 256, size=(80, 70, 3), dtype=np.uint8) for seed in range(3)]
    export_format = backbone.partition("/")[0]

    made = export_model(
        classifier,
        discover(),
        tmp_path,
        ExportReference(classifier, raw_images),
        export_format=export_format,  # type: ignore[arg-type]
    )

    assert made.same_labels == 1
    assert made.largest_difference < 1e-4
