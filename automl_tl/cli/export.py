"""``tl export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import automl_tl
from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.render import table
from automl_tl.cli.telling import ConsoleProgress, print_json, result
from automl_tl.cli.writing import folder_to_write
from automl_tl.runtime.formatting import percent

if TYPE_CHECKING:
    from automl_tl.exports import Exported

__all__ = ["export"]

Format = Literal["onnx", "torch-export", "openvino", "timm", "torchvision"]


class Precision(StrEnum):
    """Precision of the weights; an enumeration because Typer does not support lists of literals."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


def export(
    model: Model,
    export_format: Annotated[Format, typer.Option("--format", help="Export format.")] = "onnx",
    precision: Annotated[
        list[Precision] | None, typer.Option(help="Precision of the weights (repeatable); int8 needs --images. Default: fp32.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: NAME-VERSION-FORMAT.", callback=folder_to_write)
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Labeled images to measure accuracy on, and to calibrate int8.", show_default=False),
    ] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Write MODEL for another runtime, resizing included, and verify in a new process that it predicts the same."""
    exports = automl_tl.export(
        model,
        export_format=export_format,
        precisions=[one.value for one in precision or [Precision.FP32]],
        out=out,
        images=images,
        registry=registry,
        progress=ConsoleProgress(),
    )
    if as_json:
        print_json(exports)
        return
    _show(exports)


def _show(exports: list[Exported]) -> None:
    rows = (
        (
            one.precision,
            f"{one.size_mib:.1f}",
            f"{one.latency_ms:.1f}",
            f"{one.same_labels * one.num_images:.0f} of {one.num_images}",
            f"{one.largest_difference:.1e}",
            percent(one.accuracy),
            percent(one.reference_accuracy),
            one.folder,
        )
        for one in exports
    )
    columns = ("precision", "MiB", "ms/image", "same label", "largest difference", "accuracy", "PyTorch", "folder")
    result.print(table(*columns, rows=rows))
    result.print(f"run it:  python {exports[0].program} PHOTO...")
