"""``tl report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
        typer.Option(help="The images of the fit, for pictures, findings and class counts.", show_default=False),
    ] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Write a page about MODEL: data, plan, measurement, mistakes, promises. One file, no network, no script."""
    from automl_tl.runtime.paths import registry_dir
    from automl_tl.workflows.model import open_model
    from automl_tl.workflows.report import facts_of_version, read_origin, report_page
    from automl_tl_registry import Registry

    trusted = open_model(model, registry=registry)
    version = Registry(registry or registry_dir()).resolve(f"{trusted.view.name}@{trusted.view.version}")
    origin = read_origin(images, version, ConsoleProgress()) if images else None
    facts = facts_of_version(trusted, version, origin)
    file = out or Path(f"{trusted.view.name}-{trusted.view.version}.html")
    with writing(file):
        file.write_text(report_page(facts, origin), encoding="utf-8")
    if as_json:
        print_json(facts)
        return
    result.print(str(file), markup=False)
