"""Exports predict the same as the model, in a new process with the runtime of the format."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from automl_tl.data.decode import to_input
from automl_tl.errors import DisagreementError, ModelError
from automl_tl.exports import ExportReference, export_model, exporter
from automl_tl.exports.graph import CenterResize, WholeModel
from automl_tl.models.bundle import BundleFacts, Classifier, build_encoder
from automl_tl.models.heads import HeadShape, build_head
from automl_tl.models.predictor import Predictor
from automl_tl.plugin_host import Catalog, discover
from automl_tl.testing import ToyBackbone
from automl_tl.testing.toy_task import SIDE_PX
from automl_tl.values import Preprocessing
from tests.data.sample_images import encoded
from tests.data.test_colors import SEEN_BY_EXPORTS

CLASSES = ("ant", "bee", "tulip \u2603 <b>")
HAS_ONNX = all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="the extra [onnx] is not installed")
needs_openvino = pytest.mark.skipif(not (HAS_ONNX and find_spec("openvino")), reason="[onnx,openvino] is not installed")


def raw_images(count: int = 6) -> list[NDArray[np.uint8]]:
    """Images of many sizes."""
    generator = np.random.default_rng(0)
    sizes = [(40, 40), (61, 47), (33, 90), (300, 200), (5, 7), (1, 1)]
    coarse = [generator.integers(0, 256, size=(4, 4, 3), dtype=np.uint8) for _ in range(count)]
    return [
        np.array(Image.fromarray(c).resize(size, Image.Resampling.BILINEAR)) for c, size in zip(coarse, sizes, strict=False)
    ]


def files_of(images: list[NDArray[np.uint8]]) -> list[bytes]:
    return [encoded(Image.fromarray(image), "PNG") for image in images]


@pytest.fixture(scope="module", params=["solved", "trained"])
def classifier(request: pytest.FixtureRequest) -> Classifier:
    torch.manual_seed(0)
    backbone = ToyBackbone()
    encoder = torch.nn.Sequential(*backbone.cut(backbone.build(pretrained=True))).eval()
    shape = HeadShape(kind=request.param, feature_dim=32, num_classes=3, num_members=2 if request.param == "solved" else 1)
    head = build_head(shape)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=2)
    facts = BundleFacts(
        classes=CLASSES,
        preprocessing=backbone.card.preprocessing,
        backbone="toy/three_blocks",
        backbone_from="tests 0",
        strategy="linear_probe",
        head=shape,
        temperature=1.7,
    )
    return Classifier(encoder, head.eval(), facts)


pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # of one of the files
NO_PLUGINS = Catalog(())


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(256, 171), (32, 32), (37, 211), (3, 40), (1, 1)])
def test_center_resize_equals_pillow_up_to_rounding(interpolation: str, size: tuple[int, int]) -> None:
    preprocessing = Preprocessing.model_validate({"side_px": 32, "interpolation": interpolation})
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, size=(9, 9, 3), dtype=np.uint8)).resize(size)

    reference = to_input(image, preprocessing).astype(int)
    resized = CenterResize(preprocessing)(torch.from_numpy(np.array(image))[None])[0].permute(1, 2, 0).numpy().astype(int)

    assert np.abs(resized - reference).max() <= 2  # Pillow 13 rounds after whichever pass is cheaper first
    assert np.abs(resized - reference).mean() < 0.3


@pytest.mark.slow
@needs_openvino
def test_center_resize_rounds_halves_the_same_in_openvino(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    resize = CenterResize(Preprocessing(side_px=224, crop_fraction=0.875, interpolation="bicubic"))
    images = np.random.default_rng(0).integers(0, 256, size=(1, 224, 224, 3), dtype=np.uint8)
    free = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(resize, (torch.zeros((2, 61, 47, 3), dtype=torch.uint8),), dynamic_shapes=(free,))
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(program, f=tmp_path / "resize.onnx", opset_version=18, verbose=False)
    graph = openvino.Core().compile_model(tmp_path / "resize.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    assert np.array_equal(graph(images)[0], resize(torch.from_numpy(images)).numpy())


def test_whole_model_equals_pipeline(classifier: Classifier) -> None:
    images = raw_images()
    reference = ExportReference(classifier, files_of(images))

    outputs = [WholeModel(classifier)(torch.from_numpy(image)[None])[0].detach().numpy() for image in images]

    assert np.abs(np.stack(outputs) - reference.expected).max() < 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("classifier", ["solved"], indirect=True)
@pytest.mark.parametrize(
    ("export_format", "precision"),
    [
        pytest.param("onnx", "fp32", marks=needs_onnx),
        pytest.param("onnx", "fp16", marks=needs_onnx),
        pytest.param("openvino", "fp32", marks=needs_openvino),
    ],
)
def test_export_model_predicts_the_same_in_new_process(
    classifier: Classifier, export_format: str, precision: str, tmp_path: Path
) -> None:
    files = [*files_of(raw_images()), *SEEN_BY_EXPORTS.values()]
    reference = ExportReference(classifier, files, labels=np.zeros(6, dtype=np.int64))

    exported = export_model(classifier, NO_PLUGINS, tmp_path, reference, export_format=export_format, precision=precision)  # type: ignore[arg-type]

    assert exported.same_labels == 1
    assert exported.largest_difference <= exported.tolerance
    assert exported.accuracy == exported.reference_accuracy
    assert json.loads((tmp_path / "facts.json").read_text())["classes"] == list(CLASSES)
    assert json.loads((tmp_path / "agreement.json").read_text())["num_images"] == len(files)
    assert_predicts_like_tl(tmp_path, classifier, files, exported.tolerance)


@pytest.mark.skipif(find_spec("litert_torch") is not None, reason="it is here")
@pytest.mark.parametrize("classifier", ["trained"], indirect=True)
def test_export_model_says_how_to_install_converter(classifier: Classifier, tmp_path: Path) -> None:
    reference = ExportReference(classifier, files_of(raw_images(1)))

    with pytest.raises(ModelError, match="pip install litert-torch"):
        export_model(classifier, NO_PLUGINS, tmp_path, reference, export_format="litert")


if find_spec("litert_torch"):  # not in the environment of the constraints, decision 62

    @pytest.mark.parametrize("classifier", ["trained"], indirect=True)
    def test_export_to_litert_predicts_the_same_in_new_process(classifier: Classifier, tmp_path: Path) -> None:
        files = [*files_of(raw_images()), *SEEN_BY_EXPORTS.values()]

        export_model(classifier, NO_PLUGINS, tmp_path, ExportReference(classifier, files), export_format="litert")

        assert_predicts_like_tl(tmp_path, classifier, files, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("classifier", ["trained"], indirect=True)
def test_export_program_runs_alone(classifier: Classifier, tmp_path: Path) -> None:
    files = [*files_of(raw_images()), *SEEN_BY_EXPORTS.values()]
    export_model(classifier, NO_PLUGINS, tmp_path, ExportReference(classifier, files), export_format="torch-export")

    assert_predicts_like_tl(tmp_path, classifier, files, 5e-3)
    (tmp_path / "broken").write_bytes(b"no image")
    command = [sys.executable, "-P", str(tmp_path / "predict.py"), str(tmp_path / "broken"), str(tmp_path / "00")]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=120)
    assert ended.returncode == 1
    assert "broken: cannot be read" in ended.stderr
    assert ended.stdout.startswith(str(tmp_path / "00"))


def assert_predicts_like_tl(folder: Path, classifier: Classifier, files: list[bytes], tolerance: float) -> None:
    """The exported ``predict.py``, run as users do, has the labels and probabilities of ``tl predict`` for image files."""
    paths = [folder / f"{number:02}" for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    ours = list(Predictor(classifier).predict(paths))

    command = [sys.executable, "-P", str(folder / "predict.py"), *map(str, paths)]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=120, cwd=folder)

    rows = [line.split("\t") for line in ended.stdout.splitlines()]
    assert [row[:2] for row in rows] == [[row.path, row.label] for row in ours]
    assert [float(row[2].rstrip("%")) / 100 for row in rows] == pytest.approx(
        [row.probability for row in ours], abs=tolerance + 5e-4
    )


@pytest.mark.parametrize("classifier", ["solved"], indirect=True)
def test_export_model_rejects_disagreement(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = ExportReference(classifier, files_of(raw_images()))
    output = np.roll(reference.expected, 1, axis=1), 1.0
    monkeypatch.setattr(exporter, "predict_in_new_process", lambda folder, files: output)

    with pytest.raises(DisagreementError, match="torch-export"):
        export_model(classifier, NO_PLUGINS, tmp_path, reference, export_format="torch-export")


@pytest.mark.parametrize(("export_format", "precision"), [("hf", "fp32"), ("torchvision", "fp32"), ("torch-export", "fp16")])
def test_export_model_rejects_unsupported_model_and_precision(
    classifier: Classifier, export_format: str, precision: str, tmp_path: Path
) -> None:
    reference = ExportReference(classifier, files_of(raw_images(1)))

    with pytest.raises(ModelError, match=r"onnx"):
        export_model(classifier, NO_PLUGINS, tmp_path, reference, export_format=export_format, precision=precision)  # type: ignore[arg-type]


def test_center_resize_gives_input_side_of_model(classifier: Classifier) -> None:
    resized = CenterResize(classifier.facts.preprocessing)(torch.zeros((1, 90, 50, 3), dtype=torch.uint8))

    assert resized.shape == (1, 3, SIDE_PX, SIDE_PX)


def test_predict_in_new_process_reports_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "TIMEOUT_S", 0.01)

    with pytest.raises(ModelError, match=r"2 images in a new process within 0\.01 s, so it is not verified"):
        exporter.predict_in_new_process(tmp_path, files_of(raw_images(2)))


def library_classifier(backbone: str, kind: str) -> Classifier:
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
    ("backbone", "kind"), [("torchvision/resnet18", "solved"), ("torchvision/mobilenet_v3_small", "trained")]
)
def test_export_to_library_predicts_the_same_in_new_process(backbone: str, kind: str, tmp_path: Path) -> None:
    classifier = library_classifier(backbone, kind)
    images = [np.random.default_rng(seed).integers(0, 256, size=(80, 70, 3), dtype=np.uint8) for seed in range(3)]
    files = [*files_of(images), *SEEN_BY_EXPORTS.values()]

    exported = export_model(
        classifier,
        discover(),
        tmp_path,
        ExportReference(classifier, files),
        export_format="torchvision",
    )

    assert exported.same_labels == 1
    assert exported.largest_difference < 1e-4
    assert_predicts_like_tl(tmp_path, classifier, files, 1e-4)
