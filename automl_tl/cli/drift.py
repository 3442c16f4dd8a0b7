"""``tl data drift``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.render import table
from automl_tl.cli.telling import ConsoleProgress, print_json, result
from automl_tl.cli.writing import folder_to_write
from automl_tl.runtime.formatting import percent

__all__ = ["drift"]


def drift(
    model: Model,
    folder: Annotated[str, typer.Argument(help="New images: a folder, a pattern, a list or a zip.", show_default=False)],
    registry: RegistryDir = None,
    as_json: AsJson = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Copy the strangest images into this folder.", show_default=False, callback=folder_to_write),
    ] = None,
) -> None:
    """Say whether the images in FOLDER still look like those that MODEL learned from, and which look least like them."""
    from automl_tl.models.image_inputs import find_images
    from automl_tl.models.rows import copy_new
    from automl_tl.workflows.model import measure_drift, open_model

    progress, images = ConsoleProgress(), find_images([folder])
    found = measure_drift(open_model(model, registry=registry), images, progress)
    for example in found.examples if out else ():
        copy_new(out or Path(), example.path, images.read(example.path))
    if as_json:
        print_json(found)
        return
    result.print(found.words)
    rows = ((name, percent(before), percent(now)) for name, (before, now) in found.mix.items())
    result.print(table("class", "in training", "predicted here", rows=rows))
    highest = ((one.path, f"{one.ood_score:.2f}", one.predicted) for one in found.examples)
    result.print(table("least like the training images", "OOD score", "predicted", rows=highest))
