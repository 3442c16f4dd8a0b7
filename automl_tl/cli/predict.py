"""``tl predict``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.render import show_predictions

__all__ = ["predict"]


def predict(
    model: Model,
    paths: Annotated[list[Path], typer.Argument(help="Images, or folders that are searched for images.", show_default=False)],
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Say what MODEL sees in each image. An image that can't be read is a row with its error, never a stop."""
    from automl_tl.models import find_images, load

    predictions = load(model, registry=registry).predict(find_images(paths))
    if as_json:
        for prediction in predictions:
            sys.stdout.write(prediction.model_dump_json() + "\n")
    else:
        show_predictions(predictions)
