"""``tl predict``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.render import show_predictions
from automl_tl.cli.telling import ConsoleProgress
from automl_tl.cli.writing import file_to_write, folder_to_write
from automl_tl.runtime.progress import Progress

if TYPE_CHECKING:
    from automl_tl.models.rows import RowFormat
    from automl_tl.values import Prediction

__all__ = ["predict"]


def fraction(text: str) -> float:
    """A rate between 0 and 1 in a text such as ``1%`` or ``0.01``."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", text)
    value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < value < 1:
        raise typer.BadParameter(f"{text!r} is no rate between 0 and 1; examples: 1%, 0.01")
    return value


Format = Literal["table", "jsonl", "csv", "parquet"]
Inputs = Annotated[
    list[str],
    typer.Argument(
        help="Images, folders, 'patterns/*.jpg', lists (csv, tsv, jsonl, txt, parquet), zips, or - for stdin.",
        show_default=False,
    ),
]
MaxError = Annotated[
    float | None,
    typer.Option(
        parser=fraction,
        metavar="RATE",
        help="Withhold answers so that at most this share of those given is wrong, such as 1%; 95% sure. Default: no promise.",
        show_default=False,
    ),
]


def predict(
    model: Model,
    inputs: Inputs,
    max_error: MaxError = None,
    strangers: Annotated[
        bool,
        typer.Option("--strangers/--no-strangers", help="Withhold answers on images unlike anything in training."),
    ] = True,
    row_format: Annotated[Format | None, typer.Option("--format", help="Of the result. Default: by --out, else table.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the result to this file. Default: stdout.", callback=file_to_write)
    ] = None,
    copy_to: Annotated[
        Path | None,
        typer.Option(help="Copy each image into a folder of this one, named by its label.", callback=folder_to_write),
    ] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Say what MODEL sees in each image. An image that can't be read is a row with its error, never a stop."""
    from automl_tl.evaluation.abstention import AbstentionPolicy
    from automl_tl.models.image_inputs import find_images
    from automl_tl.models.predictor import Predictor
    from automl_tl.models.rows import copy_by_label
    from automl_tl.workflows.model import open_model

    chosen = _format(row_format, out, as_json)
    images = find_images(inputs)
    trusted = open_model(model, registry=registry)
    policy = trusted.abstention_policy(max_error)
    if policy.guarantee:
        ConsoleProgress().info(policy.guarantee.words)
    policy = policy if strangers else AbstentionPolicy(policy.guarantee, None)
    predictor = Predictor.for_many(trusted.classifier, len(images), ConsoleProgress())
    predictions = predictor.predict(images, images.read, policy=policy)
    if copy_to:
        predictions = copy_by_label(predictions, images.read, copy_to)
    _write(_tracked(predictions, len(images), ConsoleProgress()), chosen, out)


def _format(row_format: Format | None, out: Path | None, as_json: bool) -> Format:
    by_name: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".json": "jsonl"}
    chosen = "jsonl" if as_json else row_format or (by_name.get(out.suffix.lower(), "jsonl") if out else "table")
    if chosen == "parquet" and out is None:
        raise typer.BadParameter("parquet can't be written to stdout; name a file with --out")
    return chosen


def _tracked(predictions: Iterable[Prediction], total: int, progress: Progress) -> Iterator[Prediction]:
    """The predictions, with progress on stderr and a last line that counts."""
    answered = withheld = errors = 0
    with progress.track("predicting", total) as advance:
        for prediction in predictions:
            yield prediction
            advance(1)
            errors += prediction.error is not None
            withheld += prediction.abstained is not None
            answered += prediction.error is None and prediction.abstained is None
    progress.info(f"{total} files: {answered} answered, {withheld} withheld, {errors} not readable")


def _write(predictions: Iterator[Prediction], chosen: Format, out: Path | None) -> None:
    from automl_tl.models.rows import open_rows

    if chosen == "table":
        show_predictions(predictions)
        return
    rows: RowFormat = chosen
    with open_rows(rows, out or sys.stdout) as write:
        for prediction in predictions:
            write(prediction)
