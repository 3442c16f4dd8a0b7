"""``tl bench``: the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from automl_tl.cli.options import AsJson, Images
from automl_tl.cli.render import table
from automl_tl.cli.telling import ConsoleProgress, print_json, result
from automl_tl.cli.writing import folder_to_write
from automl_tl.runtime.formatting import percent, percent_range

__all__ = ["bench"]


def bench(
    images: Images,
    backbone: Annotated[
        list[str] | None, typer.Option("--backbone", help="Repeatable. Default: the few that a plan would look at.")
    ] = None,
    strategy: Annotated[
        list[str] | None, typer.Option("--strategy", help="Repeatable. Default: all that are installed.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="So many fits of each, with seeds 0, 1, ...")] = 1,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for cells, CSV, JSON and the page. What is there already is not fitted again.",
            callback=folder_to_write,
        ),
    ] = Path("bench"),
    as_json: AsJson = False,
) -> None:
    """Fit IMAGES with every chosen backbone and strategy, and compare accuracy, time, memory and size."""
    from automl_tl.planning import backbones_to_look_at
    from automl_tl.plugin_host import discover
    from automl_tl.reports.bench_page import ranked, write_page
    from automl_tl.values import Constraints
    from automl_tl.workflows.bench import run_cells
    from automl_tl.workflows.bench_cells import Question

    catalog, progress = discover(), ConsoleProgress()
    backbones = backbones_to_look_at(catalog, Constraints(backbones=tuple(backbone or ())))
    strategies = [catalog.strategy(name).name for name in strategy or catalog.strategies]
    questions = [
        Question(images=images, backbone=each, strategy=how, seed=seed)
        for how in strategies
        for each in backbones
        for seed in range(seeds)
    ]
    cells = list(run_cells(questions, out / "cells", progress=progress))
    page = write_page(cells, out)
    progress.info(f"page: {page}")
    if as_json:
        print_json(ranked(cells))
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
        for cell in ranked(cells)
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
