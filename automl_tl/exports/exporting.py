"""Export a model: write it, run it in a new process with the format's own runtime, compare, and record how far they agree."""

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
from automl_tl.exports.check import Said, ask_in_new_process
from automl_tl.exports.graph import WholeModel
from automl_tl.exports.library import write_library
from automl_tl.exports.snippets import snippet
from automl_tl.models.bundle import Classifier
from automl_tl.plugin_host import Catalog
from automl_tl.values import Fraction, Value

__all__ = ["FORMATS", "ExportFormat", "Exported", "Precision", "Probe", "export_model"]

ExportFormat = Literal["onnx", "torch-export", "openvino", "timm", "torchvision"]
Precision = Literal["fp32", "fp16", "int8"]
FORMATS: Final = ("onnx", "torch-export", "openvino", "timm", "torchvision")
PRECISIONS: Final[Mapping[str, tuple[str, ...]]] = {"onnx": ("fp32", "fp16", "int8"), "openvino": ("fp32", "fp16", "int8")}

# In probability. fp32: other sums in another order, and a few pixels that are rounded the other way: 1.6e-4 was the largest of
# 153 photographs in ONNX, 1e-3 in OpenVINO (benchmarks/results/trust_exports.md). fp16: 2.7e-2. int8 is only measured.
TOLERANCES: Final[Mapping[str, float]] = {"fp32": 5e-3, "fp16": 5e-2, "int8": 1.0}


class Exported(Value):
    """An export and how far it agrees with the model."""

    format: ExportFormat
    precision: Precision
    folder: Path
    size_mib: float = Field(description="of the weights and the graph")
    num_images: int = Field(description="compared in a new process")
    same_labels: Fraction
    largest_difference: float = Field(description="in probability")
    tolerance: float
    latency_ms: float = Field(description="median of one image with its preprocessing, in that process")
    accuracy: Fraction | None = Field(default=None, description="of the export, where the images have labels")
    reference_accuracy: Fraction | None = Field(default=None, description="of the model on the same images")
    program: Path = Field(description="runs the export with its own runtime and nothing of automl_tl")


class Probe:
    """Raw images ``(H, W, 3)``, uint8, what the model says of them, and their labels if they have any."""

    def __init__(
        self, classifier: Classifier, images: Sequence[NDArray[np.uint8]], labels: NDArray[np.int64] | None = None
    ) -> None:
        self.images, self.labels = images, labels
        self.expected = _expected(classifier, images)


def export_model(
    classifier: Classifier,
    catalog: Catalog,
    folder: Path,
    probe: Probe,
    *,
    export_format: ExportFormat,
    precision: Precision = "fp32",
) -> Exported:
    """``classifier`` in ``folder``, proven on ``probe`` in a new process; ``agreement.json`` keeps the proof.

    Raises:
        ModelError: the format can't take this model or its runtime is missing.
        DisagreementError: the export predicts something else; its files are left for a look.
    """
    if precision not in PRECISIONS.get(export_format, ("fp32",)):
        raise ModelError(f"{export_format} is written in fp32 only; onnx and openvino also come in fp16 and int8.")
    formats.need(export_format)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        **classifier.facts.model_dump(mode="json", include={"classes", "preprocessing", "backbone", "temperature"}),
        "precision": precision,
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")
    if export_format in ("timm", "torchvision"):
        program = write_library(classifier, catalog, export_format, folder)
    else:
        _write_graph(classifier, folder, probe, (export_format, precision))
        program = snippet(export_format)
    (folder / "predict.py").write_text(program, encoding="utf-8")
    said = ask_in_new_process(folder, probe.images)
    exported = _compared(said, probe, folder, (export_format, precision))
    (folder / "agreement.json").write_text(exported.model_dump_json(indent=2, exclude={"folder", "program"}), encoding="utf-8")
    if not exported.largest_difference <= exported.tolerance:
        what, then = f"The {export_format} export ({precision})", f"Don't use it; its files are in {folder} for a look."
        raise DisagreementError(what, exported.largest_difference, exported.tolerance, then=then)
    return exported


def _write_graph(classifier: Classifier, folder: Path, probe: Probe, wanted: tuple[ExportFormat, Precision]) -> None:
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
        formats.write_onnx_int8(whole, folder / "model.onnx", probe.images)
        whole.unlink()
    if export_format == "openvino":
        formats.write_openvino(file, folder, texts, half=precision == "fp16")
        file.unlink()


def _expected(classifier: Classifier, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Probabilities ``(N, C)`` along the way that training and prediction take."""
    preprocessing = classifier.facts.preprocessing
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    rows = []
    with torch.inference_mode():
        for image in images:
            small = torch.from_numpy(to_input(Image.fromarray(image), preprocessing).copy())
            planes = ((small.float() / 255 - mean) / std).permute(2, 0, 1)[None]
            rows.append(classifier.probabilities(classifier.encoder(planes))[0].numpy())
    return np.stack(rows)


def _compared(said: Said, probe: Probe, folder: Path, wanted: tuple[ExportFormat, Precision]) -> Exported:
    label, expected_label = said.probabilities.argmax(axis=1), probe.expected.argmax(axis=1)
    weights = [file for file in folder.iterdir() if file.suffix in (".onnx", ".data", ".xml", ".bin", ".pt2", ".safetensors")]
    accuracies: dict[str, float] = {}
    if probe.labels is not None:
        accuracies = {
            "accuracy": float((label == probe.labels).mean()),
            "reference_accuracy": float((expected_label == probe.labels).mean()),
        }
    return Exported(
        format=wanted[0],
        precision=wanted[1],
        folder=folder,
        size_mib=round(sum(file.stat().st_size for file in weights) / 2**20, 3),
        num_images=len(probe.images),
        same_labels=float((label == expected_label).mean()),
        largest_difference=float(np.abs(said.probabilities - probe.expected).max()),
        tolerance=TOLERANCES[wanted[1]],
        latency_ms=round(said.latency_ms, 3),
        program=folder / "predict.py",
        **accuracies,
    )
