"""``tl export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

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
    """Of the weights; an enumeration, because Typer has no lists of literals."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


def export(
    model: Model,
    export_format: Annotated[Format, typer.Option("--format", help="What to write.")] = "onnx",
    precision: Annotated[
        list[Precision] | None, typer.Option(help="Of the weights; repeatable. int8 wants --images. Default: fp32.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: NAME-VERSION-FORMAT here.", callback=folder_to_write)
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Labeled images to measure on, and to set int8's ranges.", show_default=False),
    ] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Write MODEL for another runtime, resize included, and prove in a new process that it predicts the same."""
    from automl_tl.exports import export_model
    from automl_tl.plugin_host import discover
    from automl_tl.workflows.model import export_probe, open_model

    progress, trusted = ConsoleProgress(), open_model(model, registry=registry)
    probe = export_probe(trusted, images, progress)
    folder = out or Path(f"{trusted.view.name}-{trusted.view.version}-{export_format}")
    made: list[Exported] = []
    for one in precision or [Precision.FP32]:
        progress.info(
            f"writing {export_format} ({one.value}), then asking it in a new process about {len(probe.images)} images"
        )
        target = folder / one.value if precision and len(precision) > 1 else folder
        made.append(
            export_model(trusted.classifier, discover(), target, probe, export_format=export_format, precision=one.value)
        )
    if as_json:
        print_json(made)
        return
    _show(made)


def _show(made: list[Exported]) -> None:
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
        for one in made
    )
    columns = ("precision", "MiB", "ms/image", "same label", "largest difference", "accuracy", "before", "folder")
    result.print(table(*columns, rows=rows))
    result.print(f"run it:  python {made[0].program} PHOTO...")
