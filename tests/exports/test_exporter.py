"""Exports predict the same as the model, in a new process with the runtime of the format."""

from __future__ import annotations

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
from automl_tl.models.bundle import Classifier
from automl_tl.plugin_host import Catalog
from automl_tl.testing.toy_task import SIDE_PX
from automl_tl.values import Preprocessing
from tests.data.sample_images import encoded
from tests.exports.classifiers import toy_classifier

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


@pytest.fixture(params=["solved", "trained"])
def classifier(request: pytest.FixtureRequest) -> Classifier:
    return toy_classifier(request.param, num_members=2 if request.param == "solved" else 1)


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


@pytest.mark.integration
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


@pytest.mark.skipif(find_spec("litert_torch") is not None, reason="it is here")
@pytest.mark.parametrize("classifier", ["trained"], indirect=True)
def test_export_model_says_how_to_install_converter(classifier: Classifier, tmp_path: Path) -> None:
    reference = ExportReference(classifier, files_of(raw_images(1)))

    with pytest.raises(ModelError, match="pip install litert-torch"):
        export_model(classifier, NO_PLUGINS, tmp_path, reference, export_format="litert")


@pytest.mark.parametrize("classifier", ["solved"], indirect=True)
def test_export_model_rejects_disagreement(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = ExportReference(classifier, files_of(raw_images()))
    output = np.roll(reference.expected, 1, axis=1), 1.0
    monkeypatch.setattr(exporter, "predict_in_new_process", lambda folder, files: output)

    with pytest.raises(DisagreementError, match="torch-export"):
        export_model(classifier, NO_PLUGINS, tmp_path, reference, export_format="torch-export")


@pytest.mark.parametrize("classifier", ["solved"], indirect=True)
def test_export_model_leaves_stdout_to_results(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def convert(*_: object, **__: object) -> None:  # onnxscript 0.6.2 prints how many rules it applied
        print("Applied 91 rules.")
        raise ModelError("far enough")

    monkeypatch.setattr("torch.export.export", convert)
    with pytest.raises(ModelError, match="far enough"):
        export_model(
            classifier, NO_PLUGINS, tmp_path, ExportReference(classifier, files_of(raw_images(1))), export_format="torch-export"
        )

    assert capsys.readouterr() == ("", "Applied 91 rules.\n")


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
