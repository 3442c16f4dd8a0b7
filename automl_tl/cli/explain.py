"""``tl explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import automl_tl
from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.render import table
from automl_tl.cli.telling import ConsoleProgress, print_json, result
from automl_tl.cli.writing import folder_to_write
from automl_tl.runtime.formatting import percent

if TYPE_CHECKING:
    from automl_tl.workflows.explain import Explained

__all__ = ["explain"]


def explain(
    model: Model,
    inputs: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images, folders, archives.", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="Folder for explanation.html and one PNG per image.", callback=folder_to_write)
    ] = Path("explanations"),
    images: Annotated[
        Path | None, typer.Option(help="The training images, to show the nearest of them.", show_default=False)
    ] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Explain predictions: a heat map of the evidence, the probabilities, and the nearest training images."""
    explained = automl_tl.explain(model, inputs, out=out, training_images=images, registry=registry, progress=ConsoleProgress())
    if as_json:
        print_json([_row(one) for one in explained])
        return
    rows = ((e.path, e.label, percent(e.top[e.label]), one.file) for one in explained for e in [one.explanation])
    result.print(table("image", "label", "probability", "picture", rows=rows))
    result.print(str(out / "explanation.html"))


def _row(one: Explained) -> dict[str, object]:
    explanation = one.explanation
    return {
        "path": explanation.path,
        "label": explanation.label,
        "top": explanation.top,
        "ood_score": explanation.ood_score,
        "neighbors": [{"path": near.path, "label": near.label, "distance": near.distance} for near in explanation.neighbors],
        "picture": str(one.file),
    }
