"""Export a model: write it, run it in a new process with the runtime of the format, and compare the predictions."""

from __future__ import annotations

import inspect
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from automl_tl.data import colors
from automl_tl.data.decode import decode
from automl_tl.errors import DisagreementError, ModelError
from automl_tl.exports.formats import ExportFormat, Precision, require_runtime, write_export
from automl_tl.exports.hugging_face import LIBRARY_ROUTE, write_hugging_face
from automl_tl.exports.linear_layer import ELSEWHERE, Folding, features_of, find_timm_network, make_linear_layer
from automl_tl.models.bundle import Classifier
from automl_tl.models.reference_predictions import output_of_python
from automl_tl.plugin_host import Catalog
from automl_tl.values import Fraction, Value

WITH_PRECISIONS: Final = ("onnx", "openvino", "web")  # the others support fp32 only
MIN_SAME_LABELS: Final = 0.8  # of a folded head; a few images per kind of file are undecided anyway
COMMON_FILES: Final = "photographs and 8-bit RGB files"
WEIGHT_FILES: Final = (".onnx", ".tflite", ".data", ".xml", ".bin", ".pt2", ".safetensors")
TIMEOUT_S: Final = 600

# In probability. fp32: sums in another order, and a few pixels rounded the other way: 1.6e-4 was the largest of 153 photographs
# in ONNX, 1e-3 in OpenVINO (benchmarks/results/trust_exports.md). fp16: 2.7e-2. int8 is only measured.
TOLERANCES: Final[Mapping[str, float]] = {"fp32": 5e-3, "fp16": 5e-2, "int8": 1.0}

# Runs ``FOLDER/predict.py`` as a user would, and imports nothing of automl_tl, so that what runs here runs elsewhere.
VERIFY: Final = """
import json, runpy, sys, time
from pathlib import Path
import numpy as np

folder, images, out = sys.argv[1:]
program = runpy.run_path(folder + "/predict.py")
read, run = program["read"], program["load"]()
files = sorted(Path(images).iterdir())
probabilities = [np.asarray(run(read(file))) for file in files]
image = read(files[0])
seconds = []
for _ in range(15):
    start = time.perf_counter()
    run(image)
    seconds.append(time.perf_counter() - start)
np.savez(out, probabilities=np.stack(probabilities).astype(np.float32))
print(json.dumps({"latency_ms": 1000 * float(np.median(seconds[3:]))}))
"""


class LibraryAgreement(Value):
    """How far an export agrees with the model on one kind of file when timm decodes and resizes."""

    kind: str
    num_images: int
    same_labels: Fraction
    largest_difference: float = Field(description="in probability")


class Exported(Value):
    """An export and how far it agrees with the model."""

    format: ExportFormat
    precision: Precision
    folder: Path
    size_mib: float = Field(description="of weights and graph")
    num_images: int = Field(description="compared in a new process")
    same_labels: Fraction
    largest_difference: float = Field(description="in probability")
    mean_difference: float = Field(description="in probability: mean over the images of the largest of an image")
    tolerance: float = Field(description="of the check; hf: from the linear layer; int8: 1, it is only measured")
    latency_ms: float = Field(description="median of one image with its preprocessing, in that process")
    accuracy: Fraction | None = Field(default=None, description="of the export, where the images have labels")
    reference_accuracy: Fraction | None = Field(default=None, description="of the model on the same images")
    folding: Folding | None = Field(default=None, description="hf: how the head became a linear layer")
    library: tuple[LibraryAgreement, ...] = Field(
        default=(), description="hf: with the decoding and transform of timm and transformers, by kind of file"
    )
    registered: str | None = Field(default=None, description="mlflow: address in the MLflow registry, models:/NAME/NUMBER")
    program: Path = Field(description="runs the export with its own runtime and without automl_tl")


class ExportReference:
    """Image files, and the model's probabilities ``(N, C)`` for them, decoded and predicted as by ``tl predict``.

    Args:
        classifier: the model.
        files: contents of image files.
        labels: class indices of the first files; the others are compared, but no accuracy counts them.
        kinds: what is unusual about each of the last files.
        training: contents of other image files, on which hf distills a head; read if necessary.
    """

    def __init__(
        self,
        classifier: Classifier,
        files: Sequence[bytes],
        labels: NDArray[np.int64] | None = None,
        kinds: Sequence[str] = (),
        training: Iterable[bytes] = (),
    ) -> None:
        self.files, self.labels, self.training = files, labels, training
        self.kinds = [*[COMMON_FILES] * (len(files) - len(kinds)), *kinds]
        self.features = features_of(classifier.encoder, classifier.facts.preprocessing, files)
        self.expected: NDArray[np.float32] = classifier.probabilities(self.features).numpy()

    @property
    def calibration(self) -> Iterator[NDArray[np.uint8]]:
        """Raw images ``(H, W, 3)``: those with labels, or all."""
        return (np.array(decode(data).image) for data in self.files[: None if self.labels is None else len(self.labels)])


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
        reference: image files to compare on, and to calibrate int8 with.
        export_format: one of ``FORMATS``.
        precision: of the weights.

    Raises:
        ModelError: the format doesn't support this model or precision, or its runtime is missing.
        DisagreementError: the export predicts something else; its files are kept for inspection.
    """
    if precision != "fp32" and export_format not in WITH_PRECISIONS:
        raise ModelError(f"{export_format} supports fp32 only; onnx, openvino and web also support fp16 and int8.")
    require_runtime(export_format)
    folder.mkdir(parents=True, exist_ok=True)
    # 1) Weights or graph, the program that runs them, and its facts in plain JSON.
    with redirect_stdout(sys.stderr):  # converters report their progress on stdout, which is for results
        intended, folding = _write_files(classifier, catalog, folder, reference, export_format, precision)
    # 2) Verify in a new process and record the result.
    probabilities, latency_ms = predict_in_new_process(folder, reference.files)
    labels, expected_labels, truth = probabilities.argmax(axis=1), reference.expected.argmax(axis=1), reference.labels
    differences = np.abs(probabilities - reference.expected).max(axis=1)
    exported = Exported(
        format=export_format,
        precision=precision,
        folder=folder,
        size_mib=round(sum(file.stat().st_size for file in folder.iterdir() if file.suffix in WEIGHT_FILES) / 2**20, 3),
        num_images=len(reference.files),
        same_labels=float((labels == expected_labels).mean()),
        largest_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        tolerance=TOLERANCES[precision],
        latency_ms=round(latency_ms, 3),
        accuracy=None if truth is None else float((labels[: len(truth)] == truth).mean()),
        reference_accuracy=None if truth is None else float((expected_labels[: len(truth)] == truth).mean()),
        folding=folding,
        library=_library_agreement(folder, reference) if export_format == "hf" else (),
        program=folder / "predict.py",
    )
    (folder / "agreement.json").write_text(
        exported.model_dump_json(indent=2, exclude={"folder", "program", "registered"}), encoding="utf-8"
    )
    difference = float(np.abs(probabilities - intended).max())
    if not difference <= exported.tolerance:
        what, then = f"The {export_format} export ({precision})", f"Don't use it; its files are in {folder} for inspection."
        raise DisagreementError(what, difference, exported.tolerance, then=then)
    if export_format == "hf" and exported.same_labels < MIN_SAME_LABELS:
        raise ModelError(
            f"One linear layer keeps the label of only {exported.same_labels:.0%} of {exported.num_images} images; expected at "
            f"least {MIN_SAME_LABELS:.0%}. Don't use {folder}. {ELSEWHERE} Or fit again with one backbone and `--head linear`."
        )
    return exported


def _write_files(
    classifier: Classifier,
    catalog: Catalog,
    folder: Path,
    reference: ExportReference,
    export_format: ExportFormat,
    precision: Precision,
) -> tuple[NDArray[np.float32], Folding | None]:
    """Write the files, and return the probabilities that they should give, and how hf folded the head."""
    facts = classifier.facts.model_dump(mode="json", include={"classes", "preprocessing", "backbone", "temperature"})
    facts["precision"] = precision
    intended, folding = reference.expected, None
    if export_format == "hf":
        network, features = find_timm_network(classifier, catalog), reference.features
        if not network.is_whole:
            features = features_of(network.encoder, network.preprocessing, reference.files)
        layer = make_linear_layer(classifier, network, features, reference.training)
        intended, folding = layer.probabilities(features).numpy(), layer.folding
        facts["preprocessing"] = network.preprocessing.model_dump(mode="json")
        program = write_hugging_face(classifier.facts.classes, network, layer, folder)
    else:
        images = reference.calibration
        program = write_export(classifier, catalog, folder, images, export_format=export_format, precision=precision)
    text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "facts.json").write_text(text, encoding="utf-8")
    (folder / "predict.py").write_text(program, encoding="utf-8")
    (folder / "colors.py").write_text(inspect.getsource(colors), encoding="utf-8")
    return intended, folding


def _library_agreement(folder: Path, reference: ExportReference) -> tuple[LibraryAgreement, ...]:
    """Compare with the model what timm makes of the files; those that Pillow alone can't read are left out."""
    probabilities, _ = predict_in_new_process(folder, reference.files, LIBRARY_ROUTE)
    readable = np.isfinite(probabilities).all(axis=1)
    same_labels = probabilities.argmax(axis=1) == reference.expected.argmax(axis=1)
    differences = np.abs(probabilities - reference.expected).max(axis=1)
    return tuple(
        LibraryAgreement(
            kind=kind,
            num_images=int(rows.sum()),
            same_labels=float(same_labels[rows].mean()),
            largest_difference=float(differences[rows].max()),
        )
        for kind in dict.fromkeys(reference.kinds)
        if (rows := readable & (np.array(reference.kinds) == kind)).any()
    )


def predict_in_new_process(folder: Path, files: Sequence[bytes], script: str = VERIFY) -> tuple[NDArray[np.float32], float]:
    """Run an exported program in a new process.

    Args:
        folder: of the export.
        files: contents of image files.
        script: runs it on a folder of images.

    Returns:
        Probabilities ``(N, C)``, and the median milliseconds of one image, preprocessing included, decoding not.

    Raises:
        ModelError: the program fails, and the message holds its last line; or it didn't end within ``TIMEOUT_S``.
    """
    with tempfile.TemporaryDirectory(prefix="tl-export-", ignore_cleanup_errors=True) as place:
        images, out = Path(place) / "images", Path(place) / "out.npz"
        images.mkdir()
        for number, data in enumerate(files):
            (images / f"{number:05}").write_bytes(data)
        output = output_of_python(
            ["-c", script, str(folder), str(images), str(out)],
            timeout_s=TIMEOUT_S,
            failed=f"The export in {folder} doesn't run in a new process",
            too_slow=f"The export in {folder} didn't predict {len(files)} images in a new process within {TIMEOUT_S} s, so it "
            "is not verified. Is the machine busy? Try again, or without --images.",
        )
        with np.load(out) as arrays:
            return arrays["probabilities"], json.loads(output.splitlines()[-1])["latency_ms"]
