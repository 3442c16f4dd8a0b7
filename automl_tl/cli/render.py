"""Render values as tables and lines on stdout."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from automl_tl.cli.telling import result
from automl_tl.runtime.formatting import percent, percent_range

if TYPE_CHECKING:
    from automl_tl.values import DatasetProfile, Estimate, Evaluation, FitOutcome, Plan, Prediction

__all__ = ["show_evaluation", "show_outcome", "show_plan", "show_predictions", "table"]


def table(*columns: str, rows: Iterable[Iterable[object]]) -> Table:
    """Return a plain table; every cell is escaped."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column)
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made


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
            _number(candidate.estimate.seconds and candidate.estimate.seconds / 60, 1),
            _number(candidate.estimate.latency_ms, 0),
            _number(candidate.estimate.size_mib, 1),
            candidate.verdict,
            candidate.reason,
        )
        for candidate in plan.candidates
    )
    columns = ("backbone", "strategy", "expected", "95%", "minutes", "ms/image", "MiB", "verdict", "reason")
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
    """Print the metrics, then one row per class."""
    result.print(escape(evaluation.words))
    figures = [
        f"balanced accuracy {percent(evaluation.balanced_accuracy)} ({percent_range(evaluation.balanced_accuracy_interval)})",
        f"macro F1 {percent(evaluation.macro_f1)} ({percent_range(evaluation.macro_f1_interval)})",
        f"log-loss {evaluation.log_loss:.3f}",
        f"calibration error {percent(evaluation.calibration_error)}",
    ]
    if evaluation.top5_accuracy is not None:
        figures.append(f"top-5 accuracy {percent(evaluation.top5_accuracy)} ({percent_range(evaluation.top5_interval)})")
    result.print(" · ".join(figures))
    rows = (
        (name, score.num_images, percent(score.precision), percent(score.recall), percent_range(score.recall_interval))
        for name, score in evaluation.per_class.items()
    )
    result.print(table("class", "images", "precision", "recall", "95%", rows=rows))


def _show_estimates(expected: Estimate, measured: Estimate) -> None:
    """Print predicted and measured figures next to each other."""
    columns = ("", "accuracy", "95%", "seconds to fit", "ms/image", "MiB", "memory, MiB")
    rows = (
        (
            name,
            percent(estimate.accuracy),
            percent_range(estimate.accuracy_interval),
            _number(estimate.seconds, 1),
            _number(estimate.latency_ms, 1),
            _number(estimate.size_mib, 1),
            _number(estimate.memory_mib, 0),
        )
        for name, estimate in (("predicted", expected), ("measured", measured))
    )
    result.print(table(*columns, rows=rows))


def _on_one_line(text: str) -> str:
    """Return ``text`` on one line; unprintable characters such as newlines are escaped."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def show_outcome(outcome: FitOutcome) -> None:
    """Print the outcome of a fit: metrics first, next steps last."""
    show_evaluation(outcome.test)
    _show_estimates(outcome.plan.expected, outcome.measured)
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
        path = escape(_on_one_line(prediction.path))
        if prediction.error is not None:
            result.print(f"{path}\t[red]error[/]\t{escape(_on_one_line(prediction.error))}", soft_wrap=True)
        elif prediction.abstained is not None:
            answer = f"{prediction.label} {percent(prediction.probability)}?"
            result.print(f"{path}\t[yellow]abstained[/]\t{escape(answer)}\t{escape(prediction.abstained)}", soft_wrap=True)
        else:
            answer = prediction.label or ""
            result.print(f"{path}\t{escape(answer)}\t{percent(prediction.probability)}", soft_wrap=True)
