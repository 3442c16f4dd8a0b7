"""``tl predict``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import automl_tl
from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.render import show_predictions
from automl_tl.cli.telling import ConsoleProgress
from automl_tl.cli.writing import file_to_write, folder_to_write

if TYPE_CHECKING:
    from automl_tl.models.rows import RowFormat
    from automl_tl.values import Prediction

__all__ = ["predict"]


def fraction(text: str) -> float:
    """Parse a rate between 0 and 1 such as ``1%`` or ``0.01``."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", text)
    value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < value < 1:
        raise typer.BadParameter(f"{text!r} is not a rate between 0 and 1; examples: 1%, 0.01")
    return value


Format = Literal["table", "jsonl", "csv", "parquet"]
Inputs = Annotated[
    list[str],
    typer.Argument(
        help="Images, folders, 'patterns/*.jpg', lists (csv, tsv, jsonl, txt, parquet), zip or tar archives, or - for stdin.",
        show_default=False,
    ),
]
MaxError = Annotated[
    float | None,
    typer.Option(
        parser=fraction,
        metavar="RATE",
        help="Abstain so that, with 95% confidence, at most RATE of the returned predictions are wrong.",
        show_default=False,
    ),
]


def predict(
    model: Model,
    inputs: Inputs,
    max_error: MaxError = None,
    reject_ood: Annotated[
        bool,
        typer.Option("--reject-ood/--no-reject-ood", help="Abstain on images unlike anything in training."),
    ] = True,
    row_format: Annotated[
        Format | None, typer.Option("--format", help="Output format. Default: from the suffix of --out, otherwise a table.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: stdout.", callback=file_to_write)] = None,
    copy_to: Annotated[
        Path | None,
        typer.Option(help="Copy each image into a subfolder of this folder, named by its label.", callback=folder_to_write),
    ] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Predict the class of each image. Unreadable files become error rows; the command continues."""
    chosen = _format(row_format, out, as_json)
    predictions = automl_tl.predict(
        model,
        inputs,
        max_error=max_error,
        reject_ood=reject_ood,
        copy_to=copy_to,
        registry=registry,
        progress=ConsoleProgress(),
    )
    _write(predictions, chosen, out)


def _format(row_format: Format | None, out: Path | None, as_json: bool) -> Format:
    by_name: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".json": "jsonl"}
    chosen = "jsonl" if as_json else row_format or (by_name.get(out.suffix.lower(), "jsonl") if out else "table")
    if chosen == "parquet" and out is None:
        raise typer.BadParameter("parquet cannot be written to stdout; name a file with --out")
    return chosen


def _write(predictions: Iterator[Prediction], chosen: Format, out: Path | None) -> None:
    from automl_tl.models.rows import open_rows

    if chosen == "table":
        show_predictions(predictions)
        return
    rows: RowFormat = chosen
    with open_rows(rows, out or sys.stdout) as write:
        for prediction in predictions:
            write(prediction)
