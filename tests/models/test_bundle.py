"""Saved models and their reference predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from automl_tl.errors import ModelError
from automl_tl.models import engines, reference_predictions
from automl_tl.models.bundle import BundleFacts, Classifier, build_encoder, load_bundle, save_bundle
from automl_tl.models.heads import ClosedFormHead, HeadShape, TrainedHead, build_head
from automl_tl.plugin_host import Catalog, discover

LITE0 = "lite/efficientnet_lite0"


def classifier(catalog: Catalog, shape: HeadShape) -> Classifier:
    backbone = catalog.backbone(LITE0)
    torch.manual_seed(3)
    head = build_head(shape)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    facts = BundleFacts(
        classes=("a", "b", "c"),
        preprocessing=backbone.card.preprocessing,
        backbone=LITE0,
        backbone_from="automl-tl 0",
        strategy="any",
        head=shape,
        temperature=1.5,
    )
    return Classifier(build_encoder(backbone, pretrained=True), head.eval(), facts)


SHAPES = [
    HeadShape(kind="solved", feature_dim=1280, num_classes=3),
    HeadShape(kind="solved", feature_dim=1280, num_classes=3, num_members=3),
    HeadShape(kind="trained", feature_dim=1280, num_classes=3),
    HeadShape(kind="trained", feature_dim=1280, num_classes=3, hidden_dims=(8, 4)),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.kind}-{shape.num_members}-{shape.hidden_dims}")
def test_load_bundle_predicts_what_was_saved(tmp_path: Path, shape: HeadShape) -> None:
    catalog = discover()
    saved = classifier(catalog, shape)
    features = torch.rand(5, 1280, generator=torch.Generator().manual_seed(0))

    encoder_file, head_file, digest = save_bundle(tmp_path, saved)
    loaded = load_bundle(encoder_file, head_file, catalog)

    assert torch.equal(loaded.probabilities(features), saved.probabilities(features))
    assert torch.allclose(loaded.probabilities(features).sum(dim=1), torch.ones(5))
    assert loaded.facts == saved.facts
    assert save_bundle(tmp_path, loaded)[2] == digest


def test_save_bundle_is_deterministic(tmp_path: Path) -> None:
    saved = classifier(discover(), SHAPES[0])
    first = [file.read_bytes() for file in save_bundle(tmp_path, saved)[:2]]

    second = [file.read_bytes() for file in save_bundle(tmp_path, saved)[:2]]

    assert first == second


def test_load_bundle_names_package_of_missing_backbone(tmp_path: Path) -> None:
    encoder_file, head_file, _ = save_bundle(tmp_path, classifier(discover(), SHAPES[0]))

    with pytest.raises(ModelError, match="Install automl-tl 0"):
        load_bundle(encoder_file, head_file, Catalog(()))


def test_check_in_new_process_reports_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_predictions, "TIMEOUT_S", 0.01)

    with pytest.raises(ModelError, match=r"within 0\.01 s, so the model is not verified"):
        reference_predictions.check_in_new_process(dict.fromkeys(reference_predictions.ROLES, tmp_path))


def test_reference_predictions_run_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "best_device", lambda: torch.device("meta"))  # a device without results
    trained = classifier(discover(), SHAPES[0])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)

    files = reference_predictions.write_reference_predictions(tmp_path, pixels, trained)
    reference_predictions.check_stand_in(files, trained)

    with torch.no_grad():
        nn.init.zeros_(next(trained.head.parameters()))
    with pytest.raises(ModelError, match="disagrees on the reference images"):
        reference_predictions.check_stand_in(files, trained)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 100])
def test_load_bundle_rejects_damaged_files(tmp_path: Path, damage: bytes) -> None:
    encoder_file, head_file, _ = save_bundle(tmp_path, classifier(discover(), SHAPES[0]))
    encoder_bytes = encoder_file.read_bytes()

    encoder_file.write_bytes(damage)
    with pytest.raises(ModelError):
        load_bundle(encoder_file, head_file, discover())
    encoder_file.write_bytes(encoder_bytes)
    head_file.write_bytes(damage)
    with pytest.raises(ModelError):
        load_bundle(encoder_file, head_file, discover())


def test_closed_form_head_averages_probabilities() -> None:
    head = ClosedFormHead(SHAPES[1])
    nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    features = torch.rand(4, 1280, generator=torch.Generator().manual_seed(1))

    unit = features / features.norm(dim=1, keepdim=True)
    by_hand = torch.stack([torch.softmax(unit @ weight.T, dim=1) for weight in head.weight]).mean(dim=0)

    assert torch.allclose(head(features).exp(), by_hand, atol=1e-5)


def test_trained_head_has_requested_layers() -> None:
    head = TrainedHead(SHAPES[3])

    assert [layer.out_features for layer in head.modules() if isinstance(layer, nn.Linear)] == [8, 4, 3]
