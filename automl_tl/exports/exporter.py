"""Export a model: write it, run it in a new process with the runtime of the format, and compare the predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from automl_tl.data.decoding import to_input
from automl_tl.errors import DisagreementError, ModelError
from automl_tl.exports import formats
from automl_tl.exports.graph import WholeModel
from automl_tl.exports.snippets import snippet
from automl_tl.exports.verification import ExportOutput, predict_in_new_process
from automl_tl.models.bundle import Classifier
from automl_tl.models.engines import Normalize
from automl_tl.plugin_host import Catalog
from automl_tl.values import Fraction, Value

__all__ = ["FORMATS", "ExportFormat", "ExportReference", "Exported", "Precision", "export_model"]

ExportFormat = Literal["onnx", "torch-export", "openvino", "timm", "torchvision"]
Precision = Literal["fp32", "fp16", "int8"]
FORMATS: Final = ("onnx", "torch-export", "openvino", "timm", "torchvision")
PRECISIONS: Final[Mapping[str, tuple[str, ...]]] = {"onnx": ("fp32", "fp16", "int8"), "openvino": ("fp32", "fp16", "int8")}
WEIGHT_FILES: Final = (".onnx", ".data", ".xml", ".bin", ".pt2", ".safetensors")

# In probability. fp32: sums in another order, and a few pixels rounded the other way: 1.6e-4 was the largest of 153 photographs
# in ONNX, 1e-3 in OpenVINO (benchmarks/results/trust_exports.md). fp16: 2.7e-2. int8 is only measured.
TOLERANCES: Final[Mapping[str, float]] = {"fp32": 5e-3, "fp16": 5e-2, "int8": 1.0}


class Exported(Value):
    """An export and how far it agrees with the model."""

    format: ExportFormat
    precision: Precision
    folder: Path
    size_mib: float = Field(description="of weights and graph")
    num_images: int = Field(description="compared in a new process")
    same_labels: Fraction
    largest_difference: float = Field(description="in probability")
    tolerance: float
    latency_ms: float = Field(description="median of one image with its preprocessing, in that process")
    accuracy: Fraction | None = Field(default=None, description="of the export, where the images have labels")
    reference_accuracy: Fraction | None = Field(default=None, description="of the model on the same images")
    program: Path = Field(description="runs the export with its own runtime and without automl_tl")


class ExportReference:
    """Raw images ``(H, W, 3)``, uint8, the model's probabilities ``(N, C)`` for them, and their labels if known."""

    def __init__(
        self, classifier: Classifier, images: Sequence[NDArray[np.uint8]], labels: NDArray[np.int64] | None = None
    ) -> None:
        self.images, self.labels = images, labels
        self.expected = _predict(classifier, images)


def export_model(
    classifier: Classifier,
    catalog: Catalog,
    folder: Path,
    reference: ExportReference,
    *,
    export_format: ExportFormat,
    precision: Precision = "fp32",
) -> Exported:
    """Export a model and verify it in a new process; ``agreement.json`` records the comparison.

    Args:
        classifier: the model.
        catalog: of the installed backbones, for timm and torchvision.
        folder: to write to; created if missing.
        reference: images to compare on, and to calibrate int8 with.
        export_format: one of ``FORMATS``.
        precision: of the weights.

    Raises:
        ModelError: the format doesn't support this model or precision, or its runtime is missing.
        DisagreementError: the export predicts something else; its files are kept for inspection.
    """
    if precision not in PRECISIONS.get(export_format, ("fp32",)):
        raise ModelError(f"{export_format} supports fp32 only; onnx and openvino also support fp16 and int8.")
    formats.require_runtime(export_format)
    folder.mkdir(parents=True, exist_ok=True)
    # 1) Facts for the program, in plain JSON.
    facts = {
        **classifier.facts.model_dump(mode="json", include={"classes", "preprocessing", "backbone", "temperature"}),
        "precision": precision,
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")
    # 2) Weights or graph, and the program that runs them.
    if export_format in ("timm", "torchvision"):
        program = formats.write_library(classifier, catalog, export_format, folder)
    else:
        _write_graph(classifier, folder, reference, (export_format, precision))
        program = snippet(export_format)
    (folder / "predict.py").write_text(program, encoding="utf-8")
    # 3) Verify in a new process and record the result.
    output = predict_in_new_process(folder, reference.images)
    exported = _compare(output, reference, folder, (export_format, precision))
    (folder / "agreement.json").write_text(exported.model_dump_json(indent=2, exclude={"folder", "program"}), encoding="utf-8")
    if not exported.largest_difference <= exported.tolerance:
        what, then = f"The {export_format} export ({precision})", f"Don't use it; its files are in {folder} for inspection."
        raise DisagreementError(what, exported.largest_difference, exported.tolerance, then=then)
    return exported


def _write_graph(
    classifier: Classifier, folder: Path, reference: ExportReference, wanted: tuple[ExportFormat, Precision]
) -> None:
    export_format, precision = wanted
    model = WholeModel(classifier)
    facts = classifier.facts.model_dump(mode="json", include={"classes", "preprocessing", "backbone", "temperature"})
    texts = {name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in facts.items()}
    if export_format == "torch-export":
        formats.write_torch_export(model, folder, texts)
        return
    file = formats.write_onnx(model, folder, texts, half=precision == "fp16" and export_format == "onnx")
    if precision == "int8":
        whole = file.rename(folder / "whole.onnx")
        formats.write_onnx_int8(whole, folder / "model.onnx", reference.images)
        whole.unlink()
    if export_format == "openvino":
        formats.write_openvino(file, folder, texts, half=precision == "fp16")
        file.unlink()


def _predict(classifier: Classifier, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Probabilities ``(N, C)`` with the preprocessing of training and prediction, in PyTorch on the CPU."""
    normalize = Normalize(classifier.facts.preprocessing)
    rows = []
    with torch.inference_mode():
        for image in images:
            resized = to_input(Image.fromarray(image), classifier.facts.preprocessing)
            planes = normalize(torch.from_numpy(resized.copy())[None])
            rows.append(classifier.probabilities(classifier.encoder(planes))[0].numpy())
    return np.stack(rows)


def _compare(
    output: ExportOutput, reference: ExportReference, folder: Path, wanted: tuple[ExportFormat, Precision]
) -> Exported:
    labels, expected_labels = output.probabilities.argmax(axis=1), reference.expected.argmax(axis=1)
    weights = [file for file in folder.iterdir() if file.suffix in WEIGHT_FILES]
    accuracies: dict[str, float] = {}
    if reference.labels is not None:
        accuracies = {
            "accuracy": float((labels == reference.labels).mean()),
            "reference_accuracy": float((expected_labels == reference.labels).mean()),
        }
    return Exported(
        format=wanted[0],
        precision=wanted[1],
        folder=folder,
        size_mib=round(sum(file.stat().st_size for file in weights) / 2**20, 3),
        num_images=len(reference.images),
        same_labels=float((labels == expected_labels).mean()),
        largest_difference=float(np.abs(output.probabilities - reference.expected).max()),
        tolerance=TOLERANCES[wanted[1]],
        latency_ms=round(output.latency_ms, 3),
        program=folder / "predict.py",
        **accuracies,
    )
