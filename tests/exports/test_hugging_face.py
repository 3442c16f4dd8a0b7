"""A Hugging Face folder loads in timm and transformers, and says how far it agrees with the model."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from automl_tl.errors import ModelError
from automl_tl.exports import Exported, ExportReference, export_model
from automl_tl.exports.hugging_face import linear_head, write_hugging_face
from automl_tl.exports.model_card import write_model_card
from automl_tl.exports.sample_files import KINDS, sample_files
from automl_tl.models.bundle import BundleFacts, Classifier, build_encoder
from automl_tl.models.heads import HeadShape, build_head
from automl_tl.plugin_host import discover
from automl_tl.values import Preprocessing
from automl_tl_registry import Facts, Metrics
from tests.optional import import_of_dev_group

CLASSES = ("ant", "bee", "t\u00fclip \u2603 <b>|")
EXPORT_PAGE = Path(__file__).parents[2] / "docs" / "export.md"
PIPELINE = """
import json, sys
from transformers import pipeline
classify = pipeline("image-classification", model=sys.argv[1])
print(json.dumps([classify(file) for file in sys.argv[2:]]))
"""


def new_classifier(backbone: str, shape: HeadShape) -> Classifier:
    torch.manual_seed(0)
    entry = discover().backbone(backbone)
    head = build_head(shape)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    facts = BundleFacts(
        classes=CLASSES,
        preprocessing=Preprocessing(side_px=64, crop_fraction=0.9),
        backbone=backbone,
        backbone_from="tests 0",
        same_network_as=entry.card.same_network_as,
        strategy="linear_probe",
        head=shape,
        temperature=1.3,
    )
    return Classifier(build_encoder(entry, pretrained=False), head.eval(), facts)


def shape_of(kind: str, feature_dim: int, **options: object) -> HeadShape:
    return HeadShape.model_validate({"kind": kind, "feature_dim": feature_dim, "num_classes": len(CLASSES), **options})


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
    classifier = new_classifier("lite/efficientnet_lite0", shape_of("solved", 1280, num_members=2))
    reference = ExportReference(classifier, sample_files(noise(3)), kinds=list(KINDS)[1:])
    exported = export_model(classifier, discover(), folder, reference, export_format="hf")
    write_model_card(folder, "bugs@3", facts_of(), exported, base_license="Apache-2.0", is_exact=False)
    return exported


def test_write_hugging_face_keeps_the_probabilities_of_a_linear_head(tmp_path: Path) -> None:
    import timm

    classifier = new_classifier("timm/resnet18", shape_of("trained", 512))
    images = torch.rand(2, 3, 64, 64)

    write_hugging_face(classifier, discover(), tmp_path, linear_head(classifier, 1.0))
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()

    with torch.inference_mode():
        expected = classifier.probabilities(classifier.encoder(images))
        assert torch.allclose(torch.softmax(network(images), dim=1), expected, atol=1e-5)


@pytest.mark.slow
def test_export_to_hugging_face_loads_in_timm_with_labels_and_preprocessing(exported: Exported) -> None:
    import timm

    network: Any = timm.create_model(f"local-dir:{exported.folder}", pretrained=True)
    config = timm.data.resolve_model_data_config(network)  # type: ignore[attr-defined, no-untyped-call]

    assert network.pretrained_cfg["label_names"] == list(CLASSES)
    assert (tuple(config["input_size"]), config["crop_pct"], config["interpolation"]) == ((3, 64, 64), 0.9, "bicubic")


@pytest.mark.slow
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

    best = [rows[0] for rows in json.loads(answers)]
    assert [row["label"] for row in best] == [line.split("\t")[1] for line in ours.splitlines()]
    assert [row["score"] for row in best] == pytest.approx(
        [float(line.split("\t")[2].rstrip("%")) / 100 for line in ours.splitlines()], abs=0.05
    )


@pytest.mark.slow
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


@pytest.mark.parametrize("num_members", [1, 2])
def test_linear_head_approximates_a_closed_form_head(num_members: int) -> None:
    classifier = new_classifier("lite/efficientnet_lite0", shape_of("solved", 1280, num_members=num_members))
    features = torch.rand(20, 1280)
    features *= 7 / features.norm(dim=1, keepdim=True)

    weight, bias = linear_head(classifier, 7.0)

    predicted = torch.softmax(features @ weight.T + bias, dim=1)
    tolerance = 1e-5 if num_members == 1 else 0.02  # features of one length fold exactly, a mean of probabilities does not
    assert torch.allclose(predicted, classifier.probabilities(features), atol=tolerance)


def test_linear_head_rejects_hidden_layers() -> None:
    classifier = new_classifier("timm/resnet18", shape_of("trained", 512, hidden_dims=(16,)))

    with pytest.raises(ModelError, match=r"hidden layers \(16\).*--head linear"):
        linear_head(classifier, 1.0)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("lite/efficientnet_lite0+lite/efficientnet_lite1", "ensemble.*--backbone lite/efficientnet_lite0`"),
        ("torchvision/resnet18", "timm has no network with the weights of torchvision/resnet18"),
    ],
)
def test_export_to_hugging_face_rejects_what_timm_has_not(backbone: str, message: str, tmp_path: Path) -> None:
    classifier = new_classifier("torchvision/resnet18", shape_of("trained", 512))
    named = classifier.facts.model_copy(update={"backbone": backbone})
    head = (torch.zeros(3, 512), torch.zeros(3))

    with pytest.raises(ModelError, match=message):
        write_hugging_face(Classifier(classifier.encoder, classifier.head, named), discover(), tmp_path, head)
