"""``tl report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.telling import ConsoleStory, print_json, result

__all__ = ["report"]


def report(
    model: Model,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: NAME-VERSION.html.", show_default=False)] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="The images of the fit, for pictures, findings and class counts.", show_default=False),
    ] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Write a page about MODEL: data, plan, measurement, mistakes, promises. One file, no network, no script."""
    from automl_tl.evaluation.report import write_report
    from automl_tl.reporting import facts_of_version
    from automl_tl.trust import open_model, thumbnails

    trusted = open_model(model, registry=registry)
    facts = facts_of_version(trusted, registry, images, ConsoleStory())
    file = out or Path(f"{trusted.view.name}-{trusted.view.version}.html")
    page = write_report(facts, thumbnails(images) if images else None)
    file.write_text(page, encoding="utf-8")
    if as_json:
        print_json(facts)
        return
    result.print(str(file), markup=False)
