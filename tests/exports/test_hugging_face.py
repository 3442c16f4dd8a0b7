"""A Hugging Face folder loads in timm and transformers, and says how far it agrees with the model."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from automl_tl.errors import ModelError
from automl_tl.exports import Exported, ExportReference, export_model
from automl_tl.exports.exporter import MIN_SAME_LABELS
from automl_tl.exports.hugging_face import write_hugging_face
from automl_tl.exports.linear_layer import LinearLayer, TimmNetwork, features_of, find_timm_network, make_linear_layer
from automl_tl.exports.model_card import write_model_card
from automl_tl.exports.sample_files import KINDS, sample_files
from automl_tl.models.bundle import Classifier
from automl_tl.models.heads import ClosedFormHead
from automl_tl.plugin_host import discover
from automl_tl.values import Preprocessing
from automl_tl_registry import Facts, Metrics
from tests.data.sample_images import encoded, sample_image
from tests.exports.classifiers import CLASSES, library_classifier, toy_classifier
from tests.optional import import_of_dev_group

EXPORT_PAGE = Path(__file__).parents[2] / "docs" / "export.md"
PIPELINE = """
import json, sys
from transformers import pipeline
classify = pipeline("image-classification", model=sys.argv[1])
print(json.dumps([classify(file) for file in sys.argv[2:]]))
"""


def noise(count: int) -> list[NDArray[np.uint8]]:
    return [np.random.default_rng(seed).integers(0, 256, size=(80, 70, 3), dtype=np.uint8) for seed in range(count)]


def facts_of(**metrics: object) -> Facts:
    figures = {"accuracy": 0.9, "interval": (0.8, 0.95), "num_images": 50, "log_loss": 0.3, **metrics}
    return Facts(
        classes=list(CLASSES),
        preprocessing={},
        backbone="timm/resnet18",
        strategy="linear_probe",
        model_digest="0",
        metrics=Metrics.model_validate(figures),
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A network of the lite plugin, whose head is not linear, as a folder that timm loads."""
    folder = tmp_path_factory.mktemp("hf")
    classifier = library_classifier("lite/efficientnet_lite0", "solved", num_members=2)
    reference = ExportReference(classifier, sample_files(noise(3)), kinds=list(KINDS)[1:])
    exported = export_model(classifier, discover(), folder, reference, export_format="hf")
    write_model_card(folder, "bugs@3", facts_of(), exported, base_license="Apache-2.0")
    return exported


@pytest.mark.parametrize("backbone", ["timm/resnet18", "torchvision/resnet18"])
def test_write_hugging_face_keeps_the_probabilities_of_a_linear_head(backbone: str, tmp_path: Path) -> None:
    import timm

    classifier = library_classifier(backbone)
    images = torch.rand(2, 3, 64, 64)
    network = find_timm_network(classifier, discover())

    layer = make_linear_layer(classifier, network, torch.zeros(1, 512))
    write_hugging_face(CLASSES, network, layer, tmp_path)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()

    assert layer.folding == "exact"
    with torch.inference_mode():
        expected = classifier.probabilities(classifier.encoder(images))
        assert torch.allclose(torch.softmax(loaded(images), dim=1), expected, atol=1e-5)


@pytest.mark.integration
def test_export_to_hugging_face_loads_in_timm_with_labels_and_preprocessing(exported: Exported) -> None:
    import timm

    network: Any = timm.create_model(f"local-dir:{exported.folder}", pretrained=True)
    config = timm.data.resolve_model_data_config(network)  # type: ignore[attr-defined, no-untyped-call]

    assert network.pretrained_cfg["label_names"] == list(CLASSES)
    assert (tuple(config["input_size"]), config["crop_pct"], config["interpolation"]) == ((3, 64, 64), 0.9, "bicubic")


@pytest.mark.integration
def test_export_to_hugging_face_runs_in_the_pipeline_of_transformers(exported: Exported, tmp_path: Path) -> None:
    import_of_dev_group("transformers")
    images = [tmp_path / f"{number}.png" for number in range(3)]
    for image, pixels in zip(images, noise(3), strict=True):
        Image.fromarray(pixels).save(image)

    # The example of the page, in its folder, then the same classifier on the other images.
    (example,) = re.findall(r"```python\n(.*?)```", EXPORT_PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    shutil.copytree(exported.folder, tmp_path / "hymenoptera-hf")
    shutil.copy(images[0], tmp_path / "photo.jpg")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", example + PIPELINE, "hymenoptera-hf", *map(str, images)]
    ended = subprocess.run(
        command, capture_output=True, encoding="utf-8", check=True, timeout=300, env=environment, cwd=tmp_path
    )
    labels, shown, answers = ended.stdout.splitlines()
    assert ast.literal_eval(labels) == list(CLASSES)
    assert ast.literal_eval(shown) == json.loads(answers)[0]
    program = [sys.executable, str(exported.folder / "predict.py"), *map(str, images)]
    ours = subprocess.run(program, capture_output=True, encoding="utf-8", check=True, timeout=300).stdout

    for rows, line in zip(json.loads(answers), ours.splitlines(), strict=True):
        _, label, percentage = line.split("\t")[:3]
        scores = {row["label"]: row["score"] for row in rows}
        assert scores[label] == pytest.approx(float(percentage.rstrip("%")) / 100, abs=0.05)


@pytest.mark.integration
def test_model_card_has_metrics_with_intervals_and_the_measured_difference(exported: Exported) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(exported.folder / "README.md")
    accuracy = card.data.eval_results[0]

    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "timm/tf_efficientnet_lite0.in1k"
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 0.9)
    assert accuracy.metric_args == {"confidence": 0.95, "low": 0.8, "high": 0.95, "num_images": 50}
    assert f"| {8 * exported.same_labels:.0f} of 8 | {exported.largest_difference:.1e} |" in card.text
    assert "&lt;b>\\|" in card.text
    assert {row.kind for row in exported.library} >= {"16-bit gray", "CMYK"}


def layer_of(classifier: Classifier, training: Sequence[bytes] = (), *, is_whole: bool = True) -> LinearLayer:
    """The linear layer of a toy model, if its network were one of timm."""
    network = TimmNetwork(
        discover().backbone("timm/resnet18"), classifier.encoder, classifier.facts.preprocessing, is_whole=is_whole
    )
    return make_linear_layer(classifier, network, torch.full((1, 32), 7 / 32**0.5), training)


def test_linear_layer_folds_a_closed_form_head_on_features_of_one_length() -> None:
    classifier = deepcopy(toy_classifier("solved", num_members=2))
    for tensor in classifier.head.parameters():
        tensor.data[1] = tensor.data[0]  # the mean of the logits stands for that of the probabilities
    features = torch.rand(20, 32, generator=torch.Generator().manual_seed(0))
    features *= 7 / features.norm(dim=1, keepdim=True)

    layer = layer_of(classifier)

    assert layer.folding == "mean_length"
    assert torch.allclose(layer.probabilities(features), classifier.probabilities(features), atol=1e-5)


@pytest.mark.parametrize(("hidden_dims", "is_whole"), [((16,), True), ((), False)], ids=["hidden layers", "other features"])
def test_linear_layer_is_distilled_from_other_heads(hidden_dims: tuple[int, ...], is_whole: bool) -> None:
    classifier = toy_classifier("trained", hidden_dims=hidden_dims)
    files = [encoded(sample_image(seed), "PNG") for seed in range(120)]
    features = features_of(classifier.encoder, classifier.facts.preprocessing, files)

    layer = layer_of(classifier, files[:80], is_whole=is_whole)

    assert layer.folding == "distilled"
    taught, learned = classifier.probabilities(features[80:]), layer.probabilities(features[80:])
    assert (taught.argmax(dim=1) == learned.argmax(dim=1)).float().mean() >= MIN_SAME_LABELS


def test_linear_layer_is_distilled_where_folding_changes_labels() -> None:
    classifier = deepcopy(toy_classifier("solved"))
    files = [encoded(sample_image(seed), "PNG") for seed in range(60)]
    features = features_of(classifier.encoder, classifier.facts.preprocessing, files)
    assert isinstance(classifier.head, ClosedFormHead)
    classifier.head.mean.copy_(functional.normalize(features, dim=1).mean(dim=0))
    classifier.head.scale.fill_(0.1)
    features *= torch.linspace(0.3, 3, 60)[:, None]  # far from their mean length
    network = TimmNetwork(
        discover().backbone("timm/resnet18"), classifier.encoder, classifier.facts.preprocessing, is_whole=True
    )

    assert make_linear_layer(classifier, network, features).folding == "mean_length"
    assert make_linear_layer(classifier, network, features, files).folding == "distilled"


def test_linear_layer_needs_training_images_to_distill() -> None:
    with pytest.raises(ModelError, match=r"hidden layers \(16\).*3 of them were found.*`--training-images`"):
        layer_of(toy_classifier("trained", hidden_dims=(16,)), [b""] * 3)


@pytest.mark.parametrize("backbone", ["lite/efficientnet_lite0:levels", "lite/efficientnet_lite0:levels+timm/resnet18"])
def test_find_timm_network_takes_the_network_out_of_levels_and_ensembles(backbone: str) -> None:
    classifier = library_classifier(backbone, "solved")

    network = find_timm_network(classifier, discover())

    assert network.backbone.card.name == "timm/tf_efficientnet_lite0"
    assert not network.is_whole
    side_px = network.preprocessing.side_px
    assert network.encoder(torch.zeros(1, 3, side_px, side_px)).shape == (1, 1280)


def test_find_timm_network_explains_what_timm_has_not() -> None:
    classifier = library_classifier("torchvision/mobilenet_v3_small")

    with pytest.raises(ModelError, match="timm has no network with the weights of torchvision/mobilenet_v3_small"):
        find_timm_network(classifier, discover())


def test_write_hugging_face_rejects_another_network_of_the_same_name(tmp_path: Path) -> None:
    backbone = discover().backbone("timm/resnet34")
    network = TimmNetwork(backbone, library_classifier("timm/resnet18").encoder, Preprocessing(side_px=64), is_whole=True)

    with pytest.raises(ModelError, match="timm/resnet34 of the installed timm is not the network that was trained"):
        write_hugging_face(CLASSES, network, LinearLayer(torch.zeros(3, 512), torch.zeros(3), "exact"), tmp_path)
