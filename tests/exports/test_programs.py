"""The program of every format, run as its users do, sees in every kind of image file what ``tl predict`` sees."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import pytest

from automl_tl.exports import FORMATS, ExportReference, export_model, web
from automl_tl.exports.exporter import TOLERANCES
from automl_tl.exports.formats import RUNTIMES
from automl_tl.models.bundle import Classifier
from automl_tl.models.predictor import Predictor
from automl_tl.plugin_host import discover
from tests.data.sample_images import encoded, sample_image
from tests.data.test_colors import SEEN_BY_EXPORTS
from tests.exports.classifiers import library_classifier, toy_classifier

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:Corrupt EXIF")]  # of one of the files
CASES = [  # format, precision, model
    *[(export_format, "fp32", toy_classifier) for export_format in FORMATS if export_format not in ("hf", "torchvision")],
    ("onnx", "fp16", toy_classifier),
    ("hf", "fp32", lambda: library_classifier("torchvision/resnet18")),
    ("torchvision", "fp32", lambda: library_classifier("torchvision/resnet18", "solved")),
    ("torchvision", "fp32", lambda: library_classifier("torchvision/mobilenet_v3_small")),
]


def unusual_files() -> dict[str, bytes]:
    files = {
        **SEEN_BY_EXPORTS,
        "photo": encoded(sample_image(1)),
        "one pixel": encoded(sample_image(1, 1, 1), "PNG"),
        "wide": encoded(sample_image(1, 300, 2), "PNG"),
        "animated WebP": encoded(sample_image(1), "WEBP", save_all=True, append_images=[sample_image(2)], lossless=True),
    }
    if find_spec("pillow_heif"):
        from pillow_heif import from_pillow

        from_pillow(sample_image(1)).save(heic := BytesIO(), quality=80)
        files["HEIC"] = heic.getvalue()
    return files


@pytest.mark.parametrize(("export_format", "precision", "model"), CASES)
def test_program_predicts_unusual_files_like_tl(
    export_format: str, precision: str, model: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := [name for name in RUNTIMES.get(export_format, ()) if not find_spec(name)]:
        # LiteRT cannot be installed with our torch, decision 62.
        pytest.skip(f"{missing} not here" if export_format == "litert" else f"{missing} is not installed")
    if export_format == "web":
        monkeypatch.setenv(web.VARIABLE, str(package_of_npm(tmp_path / "npm")))
    assert callable(model)
    classifier: Classifier = model()
    files = unusual_files()
    for number, data in enumerate(files.values()):
        (tmp_path / f"{number:02}").write_bytes(data)
    paths = [tmp_path / f"{number:02}" for number in range(len(files))]
    (tmp_path / "broken").write_bytes(b"no image")

    reference = ExportReference(classifier, [files["photo"]])
    folder = tmp_path / "exported"
    export_model(classifier, discover(), folder, reference, export_format=export_format, precision=precision)  # type: ignore[arg-type]
    rows, errors = run_program(folder, [tmp_path / "broken", *paths])

    ours = list(Predictor(classifier).predict(paths))
    assert dict(zip(files, [row[0] for row in rows], strict=True)) == dict(zip(files, [row.label for row in ours], strict=True))
    tolerance = TOLERANCES[precision] + 5e-4  # a tenth of a percent is shown
    assert [float(row[1].rstrip("%")) / 100 for row in rows] == pytest.approx([row.probability for row in ours], abs=tolerance)
    assert next(line for line in errors.splitlines() if "cannot be read" in line).startswith(str(tmp_path / "broken"))
    assert errors.count("cannot be read") == 1


def run_program(folder: Path, paths: list[Path]) -> tuple[list[list[str]], str]:
    """Label and probability of each readable file, and what the program wrote to stderr."""
    command = [sys.executable, "-P", str(folder / "predict.py"), *map(str, paths)]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=120, cwd=folder)
    return [line.split("\t")[1:] for line in ended.stdout.splitlines()], ended.stderr


def package_of_npm(folder: Path) -> Path:
    """Files in the place of ONNX Runtime Web, which the program does not use."""
    for source in web.RUNTIME_FILES:
        (folder / source).parent.mkdir(parents=True, exist_ok=True)
        (folder / source).write_bytes(b"")
    return folder
