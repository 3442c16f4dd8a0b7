"""``tl bench``: the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import automl_tl
from automl_tl.cli.options import AsJson, Images
from automl_tl.cli.render import table
from automl_tl.cli.telling import ConsoleProgress, print_json, result
from automl_tl.cli.writing import folder_to_write
from automl_tl.runtime.formatting import percent, percent_range

__all__ = ["bench"]


def bench(
    images: Images,
    backbone: Annotated[
        list[str] | None,
        typer.Option("--backbone", help="Backbone to fit (repeatable). Default: the few that a plan would consider."),
    ] = None,
    strategy: Annotated[
        list[str] | None, typer.Option("--strategy", help="Strategy to fit (repeatable). Default: all installed.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds per combination.")] = 1,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the results. Cells that are already there are not fitted again.",
            callback=folder_to_write,
        ),
    ] = Path("bench"),
    as_json: AsJson = False,
) -> None:
    """Fit IMAGES with every backbone and strategy, and compare accuracy, time, memory and size."""
    cells = automl_tl.bench(
        images,
        backbones=backbone or (),
        strategies=strategy or (),
        num_seeds=seeds,
        out=out,
        progress=ConsoleProgress(),
    )
    if as_json:
        print_json(cells)
        return
    rows = (
        (
            cell.backbone,
            cell.strategy,
            cell.seed,
            *(
                [cell.error]
                if cell.error
                else [
                    percent(cell.accuracy),
                    percent_range(cell.interval),
                    f"{cell.seconds:.1f}",
                    f"{cell.latency_ms:.1f}",
                    f"{cell.latency_4_ms:.1f}",
                    f"{cell.memory_mib:.0f}",
                    f"{cell.size_mib:.1f}",
                ]
            ),
        )
        for cell in cells
    )
    columns = (
        "backbone",
        "strategy",
        "seed",
        "accuracy",
        "95%",
        "seconds",
        "1 image, ms",
        "4 images, ms",
        "memory, MiB",
        "MiB",
    )
    result.print(table(*columns, rows=rows))
