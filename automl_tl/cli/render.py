"""Results as tables and JSON on stdout; progress, warnings and errors on stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from automl_tl.cli.streams import MIN_COLUMNS
from automl_tl.runtime.formatting import encodable_json, first_few, percent, printable
from automl_tl.runtime.progress_bars import ProgressBars

if TYPE_CHECKING:
    from automl_tl.values import DatasetProfile, Evaluation, FitOutcome, Plan, Prediction

WIDE_COLUMNS = 240
LINE_BREAK = "\n"


def _is_terminal(stream: TextIO | None) -> bool:
    """Return whether a person sees ``stream``; a file is none, even with ``FORCE_COLOR``, which is about colors only."""
    return stream is not None and stream.isatty()


# ":bee:" stays as it is. Tables are never truncated in a pipe or a file; below some width, rich leaves columns out.
_terminal_columns = max(get_terminal_size().columns, MIN_COLUMNS)
_stderr = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True, width=_terminal_columns)
result = Console(highlight=False, emoji=False, width=_terminal_columns if _is_terminal(sys.stdout) else WIDE_COLUMNS)


LOGGERS = tuple(logging.getLogger(name) for name in ("automl_tl", "automl_tl_registry"))  # their level is the verbosity


class ConsoleProgress(ProgressBars):
    """Progress on stderr: lines through the log, and bars unless it is quiet."""

    def __init__(self) -> None:
        super().__init__(_stderr)

    @property
    def is_seen(self) -> bool:
        """Whether a person wants to see a bar."""
        return super().is_seen and LOGGERS[0].isEnabledFor(logging.INFO)


class _Lines(logging.Handler):
    """Prints log records on stderr: warnings highlighted, debug messages with time and module, the others as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        text = plain(self.format(record), keep=LINE_BREAK if record.exc_info else "")
        if record.levelno >= logging.WARNING:
            _stderr.print(f"[yellow]![/] {text}")
        elif record.levelno >= logging.INFO:
            _stderr.print(text, style="dim")
        else:
            _stderr.print(f"{record.relativeCreated / 1000:.2f} s {record.name}: {text}", style="dim")


def set_verbosity(level: int) -> None:
    """Print what our packages log from ``level`` on: ``ERROR`` is quiet, ``INFO`` usual, ``DEBUG`` verbose."""
    for logger in LOGGERS:
        logger.setLevel(level)


@contextmanager
def log_on_stderr() -> Iterator[None]:
    """Print what our packages log, with the usual verbosity at first; other packages keep their own settings."""
    handler, levels = _Lines(), [logger.level for logger in LOGGERS]
    set_verbosity(logging.INFO)
    for logger in LOGGERS:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in zip(LOGGERS, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def print_error(text: str) -> None:
    """Print an error on stderr."""
    _stderr.print(f"[bold red]error:[/] {plain(text, keep=LINE_BREAK)}")


def print_json(value: object) -> None:
    """Print a value, or a dictionary or list of values, on stdout as indented JSON, without NaN or infinity."""
    sys.stdout.write(to_json_text(value, encoding=sys.stdout.encoding) + "\n")


def to_json_text(value: object, *, encoding: str | None) -> str:
    """Return ``value`` as strict JSON; NaN and infinity become ``null``.

    Args:
        value: a value, or a dictionary or list of values.
        encoding: of the stream; characters outside ASCII are escaped unless it is UTF-8.
    """
    from pydantic import TypeAdapter

    adapter = TypeAdapter(Any)
    try:
        text = adapter.dump_json(value, indent=2).decode()
    except ValueError:  # the name of a file that is not UTF-8; json.loads and os.fsencode give it back
        return json.dumps(_without_nan(adapter.dump_python(value, mode="json")), indent=2, allow_nan=False)
    return encodable_json(text, encoding)


def _without_nan(value: object) -> object:
    """A JSON value with ``None`` for NaN and infinity."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def table(*columns: str, rows: Iterable[Iterable[object]]) -> Table:
    """Return a table without lines; cells have no markup, and their control characters are visible."""
    listed = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        listed.add_column(Text(printable(column)))
    for row in rows:
        listed.add_row(*(Text(printable(str(cell))) for cell in row))
    return listed


def plain(text: str, *, keep: str = "") -> str:
    """Escape ``text`` for printing: it has no markup, and its control characters are visible.

    Args:
        text: any text, such as a label.
        keep: control characters to leave as they are.
    """
    return escape(printable(text, keep=keep))


def show_plan(plan: Plan) -> None:
    """Print the plan, its reasons and the ranked candidates."""
    result.print(_summarize(plan.profile))
    result.print(f"[bold]{plain(plan.strategy)}[/] on [bold]{plain(plan.backbone)}[/]")
    for reason in plan.reasons:
        result.print(f"  {plain(reason)}")
    from automl_tl.values import CandidateVerdict

    result.print(table(*CandidateVerdict.COLUMNS, rows=(candidate.cells for candidate in plan.candidates)))
    for change in plan.changes:
        result.print(f"  {plain(change)}")
    if (there := plan.elsewhere) is not None:
        work = f"slots: {there.num_slots}, images to extract: {there.num_images}"
        result.print(plain(f"Expected on {there.on} ({work}): {there.seconds:.0f} s, {there.slot_hours:.2f} slot-hours."))


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
    result.print(plain(evaluation.words))
    for warning in first_few(evaluation.warnings, "classes"):
        result.print(f"[yellow]![/] {plain(warning)}")
    result.print(evaluation.figures)
    result.print(table(*evaluation.CLASS_COLUMNS, rows=evaluation.class_cells))


def show_outcome(outcome: FitOutcome) -> None:
    """Print the outcome of a fit: metrics first, next steps last."""
    show_evaluation(outcome.test)
    rows = [("predicted", *outcome.plan.expected.cells), ("measured", *outcome.measured.cells)]
    result.print(table("", *outcome.measured.columns, rows=rows))
    for finding in outcome.findings:
        if finding.code == "corrections":
            result.print(plain(f"{finding.title}. {finding.why}"))
    for note in outcome.notes:
        result.print(plain(note))
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in outcome.seconds_by_step.items())
    result.print(f"{outcome.seconds:.1f} s in total: {steps}")
    result.print(f"registered as [bold green]{plain(outcome.model)}[/]")
    if outcome.report:
        result.print(f"report: {plain(str(outcome.report))}", soft_wrap=True)
    name = outcome.model.partition("@")[0]
    result.print(f"next: tl predict {name} IMAGE...   ·   tl registry promote {outcome.model} production")


def show_predictions(predictions: Iterable[Prediction]) -> None:
    """Print one line per image as it is predicted."""
    for prediction in predictions:
        path = plain(prediction.path)
        if prediction.error is not None:
            result.print(f"{path}\t[red]error[/]\t{plain(prediction.error)}", soft_wrap=True)
        elif prediction.abstained is not None:
            guess = plain(f"{prediction.label} {percent(prediction.probability)}?")
            result.print(f"{path}\t[yellow]abstained[/]\t{guess}\t{plain(prediction.abstained)}", soft_wrap=True)
        else:
            result.print(f"{path}\t{plain(prediction.label or '')}\t{percent(prediction.probability)}", soft_wrap=True)
