"""``tl data drift``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import automl_tl
from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.render import table
from automl_tl.cli.telling import ConsoleProgress, print_json, result
from automl_tl.cli.writing import folder_to_write
from automl_tl.runtime.formatting import percent

__all__ = ["drift_command"]


def drift_command(
    model: Model,
    folder: Annotated[str, typer.Argument(help="New images: a folder, pattern, list or zip archive.", show_default=False)],
    registry: RegistryDir = None,
    as_json: AsJson = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Copy the most unusual images into this folder.", show_default=False, callback=folder_to_write),
    ] = None,
) -> None:
    """Compare the images in FOLDER with MODEL's training images, and list the most unusual ones."""
    drift = automl_tl.drift(model, [folder], copy_to=out, registry=registry, progress=ConsoleProgress())
    if as_json:
        print_json(drift)
        return
    result.print(drift.words)
    rows = ((name, percent(before), percent(now)) for name, (before, now) in drift.mix.items())
    result.print(table("class", "in training", "predicted here", rows=rows))
    unusual = ((one.path, f"{one.ood_score:.2f}", one.predicted) for one in drift.examples)
    result.print(table("least like the training images", "OOD score", "predicted", rows=unusual))
