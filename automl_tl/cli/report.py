"""``tl report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import automl_tl
from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.telling import ConsoleProgress, print_json, result
from automl_tl.cli.writing import file_to_write, writing

__all__ = ["report"]


def report(
    model: Model,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: NAME-VERSION.html.", show_default=False, callback=file_to_write)
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="The images of the fit, for thumbnails, findings and class counts.", show_default=False),
    ] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Write an HTML report about MODEL: data, plan, evaluation, errors, abstention. One file, no network, no scripts."""
    with writing(out or Path()):
        facts = automl_tl.report(model, out=out, images=images, registry=registry, progress=ConsoleProgress())
    if as_json:
        print_json(facts)
        return
    result.print(str(out or f"{facts.model.replace('@', '-')}.html"), markup=False)
