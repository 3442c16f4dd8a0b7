"""Commands that use a registered model: predict, evaluate, explain, drift, export, report."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import automl_tl
from automl_tl.cli.options import (
    AsJson,
    ClassesAreFolders,
    CorrectionsFile,
    Images,
    MaxError,
    Model,
    RegistryDir,
    RejectOod,
    file_to_write,
    folder_to_write,
    writing,
)
from automl_tl.cli.render import ConsoleProgress, plain, print_json, result, show_evaluation, show_predictions, table
from automl_tl.runtime.formatting import percent

if TYPE_CHECKING:
    from automl_tl.data.image_inputs import ImageInputs

RowFormat = Literal["table", "jsonl", "csv", "parquet"]
ExportFormat = Literal["onnx", "torch-export", "openvino", "litert", "web", "hf", "mlflow", "torchvision"]
FORMAT_BY_SUFFIX: dict[str, RowFormat] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".json": "jsonl"}


class Precision(StrEnum):
    """Precision of the weights; an enumeration because Typer does not support lists of literals."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


def predict(
    model: Model,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="Images, folders, patterns, lists (csv, tsv, jsonl, txt, parquet), zip or tar archives, or - for stdin.",
            show_default=False,
        ),
    ],
    max_error: MaxError = None,
    reject_ood: RejectOod = True,
    row_format: Annotated[
        RowFormat | None, typer.Option("--format", help="Output format. Default: from the suffix of --out, otherwise a table.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: stdout.", callback=file_to_write)] = None,
    copy_to: Annotated[
        Path | None,
        typer.Option(help="Copy each image into a subfolder of this folder, named by its label.", callback=folder_to_write),
    ] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Predict the class of each image. Unreadable files become error rows; the command continues."""
    default = FORMAT_BY_SUFFIX.get(out.suffix.lower(), "jsonl") if out else "table"
    chosen = "jsonl" if as_json else row_format or default
    if chosen == "parquet" and out is None:
        raise typer.BadParameter("parquet cannot be written to stdout; name a file with --out")
    predictions = automl_tl.predict(
        model,
        _find_images(inputs),
        max_error=max_error,
        reject_ood=reject_ood,
        copy_to=copy_to,
        registry=registry,
        progress=ConsoleProgress(),
    )
    if chosen == "table":
        show_predictions(predictions)
        return
    from automl_tl.models.rows import open_rows
    from automl_tl.runtime.resources import writing_to

    with writing_to(out) if out else nullcontext(), open_rows(chosen, out or sys.stdout) as write:
        for prediction in predictions:
            write(prediction)


def _find_images(inputs: list[str]) -> ImageInputs:
    """Find the images that ``inputs`` name, each once; one that does not exist is an error."""
    from automl_tl.data.image_inputs import find_images

    return find_images(inputs, progress=ConsoleProgress())


def evaluate(
    model: Model,
    images: Images,
    classes_are_folders: ClassesAreFolders = False,
    corrections: CorrectionsFile = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate MODEL on labeled IMAGES (only on test/ if there is one). Classes are matched by name.

    Training images and unusable files among them are counted on stderr and in --json.
    """
    evaluation = automl_tl.evaluate(
        model,
        images,
        corrections=corrections,
        classes_are_folders=classes_are_folders,
        registry=registry,
        progress=ConsoleProgress(),
    )
    print_json(evaluation) if as_json else show_evaluation(evaluation)


def explain(
    model: Model,
    inputs: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Images, folders, archives.", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="Folder for explanation.html and one JPEG per image.", callback=folder_to_write)
    ] = Path("explanations"),
    images: Annotated[
        str | None, typer.Option(help="The training images, to show the nearest of them.", show_default=False)
    ] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Explain predictions: a heatmap of the evidence, the probabilities, and the nearest training images."""
    explanations = automl_tl.explain(
        model, _find_images(inputs), out=out, training_images=images, registry=registry, progress=ConsoleProgress()
    )
    if as_json:
        print_json(explanations)
        return
    rows = ((one.path, one.label, percent(one.top[one.label]), one.heatmap) for one in explanations)
    result.print(table("image", "label", "probability", "heatmap", rows=rows))
    result.print(plain(str(out / "explanation.html")), soft_wrap=True)


def drift(
    model: Model,
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="New images: a folder, pattern, list or archive.", show_default=False)
    ],
    registry: RegistryDir = None,
    as_json: AsJson = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Copy the most unusual images into this folder.", show_default=False, callback=folder_to_write),
    ] = None,
) -> None:
    """Compare the images in FOLDER with MODEL's training images, and list the most unusual ones."""
    drift = automl_tl.drift(model, folder, out=out, registry=registry, progress=ConsoleProgress())
    if as_json:
        print_json(drift)
        return
    result.print(plain(drift.words))
    rows = ((name, percent(training), percent(predicted)) for name, (training, predicted) in drift.mix.items())
    result.print(table("class", "in training", "predicted here", rows=rows))
    unusual = ((example.path, f"{example.ood_score:.2f}", example.predicted) for example in drift.examples)
    result.print(table("least like the training images", "OOD score", "predicted", rows=unusual))


def export(
    model: Model,
    export_format: Annotated[ExportFormat, typer.Option("--format", help="Export format.")] = "onnx",
    precision: Annotated[
        list[Precision] | None, typer.Option(help="Precision of the weights (repeatable); int8 needs --images. Default: fp32.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: NAME-VERSION-FORMAT.", callback=folder_to_write)
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="Labeled images to measure accuracy on, and to calibrate int8.", show_default=False),
    ] = None,
    corrections: CorrectionsFile = None,
    training_images: Annotated[
        str | None,
        typer.Option(
            help="With --format hf: the images of the fit, to distill heads that no linear layer computes. Default: where they "
            "were at the fit.",
            show_default=False,
        ),
    ] = None,
    register: Annotated[
        bool,
        typer.Option(
            "--register", help="With --format mlflow: also register it where MLFLOW_TRACKING_URI points, with its aliases."
        ),
    ] = False,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Write MODEL for another runtime, resizing included, and verify in a new process that it predicts the same."""
    exports = automl_tl.export(
        model,
        format=export_format,
        precision=[one.value for one in precision or [Precision.FP32]],
        out=out,
        images=images,
        corrections=corrections,
        training_images=training_images,
        register=register,
        registry=registry,
        progress=ConsoleProgress(),
    )
    if as_json:
        print_json(exports)
        return
    rows = (
        (
            exported.precision,
            f"{exported.size_mib:.1f}",
            f"{exported.latency_ms:.1f}",
            f"{exported.same_labels * exported.num_images:.0f} of {exported.num_images}",
            f"{exported.largest_difference:.1e}",
            percent(exported.accuracy),
            percent(exported.reference_accuracy),
            exported.folder,
        )
        for exported in exports
    )
    columns = ("precision", "MiB", "ms/image", "same label", "largest difference", "accuracy", "in PyTorch", "folder")
    result.print(table(*columns, rows=rows))
    result.print(plain(f"Run it: python {exports[0].program} IMAGE..."), soft_wrap=True)
    if register:
        result.print(plain(f"registered as {exports[0].registered}"), soft_wrap=True)


def report(
    model: Model,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: NAME-VERSION.html.", show_default=False, callback=file_to_write)
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="The images of the fit, for thumbnails, findings and class counts.", show_default=False),
    ] = None,
    classes_are_folders: ClassesAreFolders = False,
    corrections: CorrectionsFile = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Write an HTML report about MODEL: data, plan, evaluation, errors, abstention. One file, no network, no scripts."""
    with writing(out or Path()):
        facts = automl_tl.report(
            model,
            out=out,
            images=images,
            corrections=corrections,
            classes_are_folders=classes_are_folders,
            registry=registry,
            progress=ConsoleProgress(),
        )
    if as_json:
        print_json(facts)
    else:
        result.print(plain(str(out or f"{facts.model.replace('@', '-')}.html")), soft_wrap=True)
