"""Model files and external weights: loading runs no code, and what does not fit is an error."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from automl_tl.errors import ModelError, WeightsError
from automl_tl.models import engines, reference_predictions
from automl_tl.models.bundle import BundleFacts, Classifier, build_encoder, load_bundle, load_weights, read_weights, save_bundle
from automl_tl.models.heads import ClosedFormHead, HeadShape, TrainedHead, build_head
from automl_tl.plugin_host import Catalog, discover
from automl_tl.values import Preprocessing

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


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))


def blocks(whole: nn.Sequential) -> nn.Sequential:
    return whole[:2]


def other_state() -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {name: torch.rand_like(tensor.float()).to(tensor.dtype) for name, tensor in network().state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module._orig_mod.", "backbone."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_load_weights_strips_prefixes(tmp_path: Path, prefix: str, suffix: str) -> None:
    state = {prefix + name: tensor for name, tensor in other_state().items()}
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save({"epoch": 3, "state_dict": state}, file)
    whole = network()

    summary = load_weights(whole, blocks(whole), file)

    assert torch.equal(whole.state_dict()["0.weight"], other_state()["0.weight"])
    assert summary == f"loaded 9 of 9 tensors from {file.name}"


def test_load_weights_skips_and_names_other_head(tmp_path: Path) -> None:
    state = other_state() | {"3.weight": torch.zeros(7, 4), "3.bias": torch.zeros(7)}
    save_file(state, tmp_path / "w.safetensors")
    whole = network()

    summary = load_weights(whole, blocks(whole), tmp_path / "w.safetensors")

    assert "3.weight" in summary
    assert torch.equal(whole.state_dict()["0.weight"], state["0.weight"])


def test_load_weights_accepts_files_without_counters(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in other_state().items() if "num_batches" not in name}
    save_file(state, tmp_path / "w.safetensors")
    whole = network()

    assert "not loaded: 1.num_batches_tracked" in load_weights(whole, blocks(whole), tmp_path / "w.safetensors")


def test_load_weights_rejects_missing_tensor_of_block(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in other_state().items() if name != "0.weight"}
    save_file(state, tmp_path / "w.safetensors")
    whole = network()
    before = whole.state_dict()["0.bias"].clone()

    with pytest.raises(WeightsError, match=r"0\.weight \(4, 3, 3, 3\) \(found: missing\)"):
        load_weights(whole, blocks(whole), tmp_path / "w.safetensors")
    assert torch.equal(whole.state_dict()["0.bias"], before)


class Exploit:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code was run')",))


@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps(Exploit()), pickle.dumps({"a": 1})])
def test_read_weights_rejects_files_without_tensors_or_with_code(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)

    with pytest.raises(WeightsError, match=r"weights\.pth"):
        read_weights(file)


def test_read_weights_rejects_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.safetensors"):
        read_weights(tmp_path / "absent.safetensors")


def test_digest_of_a_model_does_not_depend_on_fields_of_averaged_heads(tmp_path: Path) -> None:
    shape = HeadShape(kind="solved", feature_dim=3, num_classes=2)
    facts = BundleFacts(
        classes=("a", "b"),
        preprocessing=Preprocessing(side_px=32),
        backbone="toy/x",
        backbone_from="toy 1",
        strategy="s",
        head=shape,
        temperature=1.0,
    )

    _, _, digest = save_bundle(tmp_path, Classifier(nn.Identity(), build_head(shape), facts))

    assert digest == "ac2a16abece9ccfc310613d02ccf764854a81e36096ecec202e0652fa38fbf41"
