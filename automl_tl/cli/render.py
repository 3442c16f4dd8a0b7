"""Results as tables and JSON on stdout; progress, warnings and errors on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from automl_tl.runtime.formatting import first_few, percent, percent_range
from automl_tl.runtime.progress import Advance

if TYPE_CHECKING:
    from pydantic import BaseModel

    from automl_tl.values import DatasetProfile, Evaluation, FitOutcome, Plan, Prediction

WIDE_COLUMNS = 240

_stderr = Console(stderr=True, highlight=False, soft_wrap=True)
result = Console(highlight=False)
if not result.is_terminal:  # never truncate in a pipe or a file
    result = Console(highlight=False, width=WIDE_COLUMNS)


class ConsoleProgress:
    """Progress on stderr; without a terminal there are lines but no bars."""

    def info(self, text: str) -> None:
        """Print one line."""
        _stderr.print(escape(text), style="dim")

    def warn(self, text: str) -> None:
        """Print one highlighted line."""
        _stderr.print(f"[yellow]![/] {escape(text)}")

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """See ``Progress``; the bar shows the remaining time."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        lock = Lock()
        with Progress(*columns, console=_stderr, transient=True, disable=not _stderr.is_terminal) as progress:
            task = progress.add_task(description, total=total)

            def advance(done: int) -> None:
                with lock:
                    progress.advance(task, done)

            yield advance


def print_error(text: str) -> None:
    """Print an error on stderr."""
    _stderr.print(f"[bold red]error:[/] {escape(text)}")


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, object] | list[dict[str, object]]) -> None:
    """Print ``value`` on stdout as indented JSON."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        text = value.model_dump_json(indent=2)
    else:
        plain = [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in value]
        text = json.dumps(value if isinstance(value, dict) else plain, indent=2, ensure_ascii=False)
    result.file.write(text + "\n")


def table(*columns: str, rows: Iterable[Iterable[object]]) -> Table:
    """Return a plain table; every cell is escaped."""
    plain = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        plain.add_column(column)
    for row in rows:
        plain.add_row(*(escape(str(cell)) for cell in row))
    return plain


def printable(text: str) -> str:
    """Return ``text`` on one line; unprintable characters such as newlines are escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def number(value: float | None, digits: int) -> str:
    """Format a number for a table.

    Args:
        value: in the unit of its column; ``None`` becomes "-".
        digits: number of decimals.
    """
    return "-" if value is None else f"{value:.{digits}f}"


def show_plan(plan: Plan) -> None:
    """Print the plan, its reasons and the ranked candidates."""
    result.print(_summarize(plan.profile))
    result.print(f"[bold]{escape(plan.strategy)}[/] on [bold]{escape(plan.backbone)}[/]")
    for reason in plan.reasons:
        result.print(f"  {escape(reason)}")
    rows = (
        (
            candidate.backbone,
            candidate.strategy,
            percent(candidate.estimate.accuracy),
            percent_range(candidate.estimate.accuracy_interval),
            number(candidate.estimate.seconds and candidate.estimate.seconds / 60, 1),
            number(candidate.estimate.latency_ms, 0),
            number(candidate.estimate.size_mib, 1),
            candidate.verdict.replace("_", " "),
            candidate.reason,
        )
        for candidate in plan.candidates
    )
    columns = ("backbone", "strategy", "expected", "95% CI", "minutes", "ms/image", "MiB", "verdict", "reason")
    result.print(table(*columns, rows=rows))
    for change in plan.changes:
        result.print(f"  {escape(change)}")


def _summarize(profile: DatasetProfile) -> str:
    fewest, most = profile.min_images_per_class, max(profile.images_per_class.values())
    facts = [
        f"{profile.num_images} training and validation images, {profile.num_test_images} test images",
        f"{profile.num_classes} classes with {fewest}" + (f" to {most}" if most > fewest else "") + " images",
        f"median shorter side {profile.median_side_px} px",
    ]
    if profile.gray_fraction:
        facts.append(f"{percent(profile.gray_fraction)} grayscale")
    if profile.num_duplicates:
        facts.append(f"{profile.num_duplicates} duplicates")
    return " · ".join(facts)


def show_evaluation(evaluation: Evaluation) -> None:
    """Print the metrics, the classes that are missed, then one row per class."""
    result.print(escape(evaluation.words))
    for warning in first_few(evaluation.warnings, "classes"):
        result.print(f"[yellow]![/] {escape(printable(warning))}")
    metrics = [
        f"balanced accuracy {percent(evaluation.balanced_accuracy)} ({percent_range(evaluation.balanced_accuracy_interval)})",
        f"macro F1 {percent(evaluation.macro_f1)} ({percent_range(evaluation.macro_f1_interval)})",
        f"log loss {evaluation.log_loss:.3f}",
        f"calibration error {percent(evaluation.calibration_error)}",
    ]
    if evaluation.top5_accuracy is not None:
        metrics.append(f"top-5 accuracy {percent(evaluation.top5_accuracy)} ({percent_range(evaluation.top5_interval)})")
    result.print(" · ".join(metrics))
    rows = (
        (name, score.num_images, percent(score.precision), percent(score.recall), percent_range(score.recall_interval))
        for name, score in evaluation.per_class.items()
    )
    result.print(table("class", "images", "precision", "recall", "95% CI", rows=rows))


def show_outcome(outcome: FitOutcome) -> None:
    """Print the outcome of a fit: metrics first, next steps last."""
    show_evaluation(outcome.test)
    rows = (
        (
            name,
            percent(estimate.accuracy),
            percent_range(estimate.accuracy_interval),
            number(estimate.seconds, 1),
            number(estimate.latency_ms, 1),
            number(estimate.size_mib, 1),
            number(estimate.memory_mib, 0),
        )
        for name, estimate in (("predicted", outcome.plan.expected), ("measured", outcome.measured))
    )
    result.print(table("", "accuracy", "95% CI", "seconds to fit", "ms/image", "MiB", "memory, MiB", rows=rows))
    for note in outcome.notes:
        result.print(escape(note))
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in outcome.seconds_by_step.items())
    result.print(f"{outcome.seconds:.1f} s in total: {steps}")
    result.print(f"registered as [bold green]{escape(outcome.model)}[/]")
    if outcome.report:
        result.print(f"report: {escape(str(outcome.report))}", soft_wrap=True)
    name = outcome.model.partition("@")[0]
    result.print(f"next: tl predict {name} IMAGE...   ·   tl registry promote {outcome.model} production")


def show_predictions(predictions: Iterable[Prediction]) -> None:
    """Print one line per image as it is predicted."""
    for prediction in predictions:
        path = escape(printable(prediction.path))
        if prediction.error is not None:
            result.print(f"{path}\t[red]error[/]\t{escape(printable(prediction.error))}", soft_wrap=True)
        elif prediction.abstained is not None:
            guess = escape(f"{prediction.label} {percent(prediction.probability)}?")
            result.print(f"{path}\t[yellow]abstained[/]\t{guess}\t{escape(prediction.abstained)}", soft_wrap=True)
        else:
            result.print(f"{path}\t{escape(prediction.label or '')}\t{percent(prediction.probability)}", soft_wrap=True)
