"""``tl data``: check images, show their split, measure drift."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import automl_tl
from automl_tl.cli.drift import drift_command
from automl_tl.cli.options import AsJson, Images
from automl_tl.cli.render import table
from automl_tl.cli.telling import ConsoleProgress, result
from automl_tl.cli.writing import file_to_write, writing
from automl_tl.errors import DataError, NoImagesError
from automl_tl.runtime.paths import cache_dir, splits_dir

if TYPE_CHECKING:
    from automl_tl.values import DataReport, DatasetIndex, Finding

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Check images, show their split, and measure drift.")
app.command("drift", epilog="Example: tl data drift flowers@production ./new-photos")(drift_command)

NUM_NAMED = 3


@app.command(epilog="Example: tl data check ./images --fix fixes.csv")
def check(
    images: Images,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 3 on any warning or rejected file.")] = False,
    fix: Annotated[
        Path | None,
        typer.Option(
            help="Write proposed fixes to this CSV; images are never modified.", show_default=False, callback=file_to_write
        ),
    ] = None,
    labels: Annotated[
        bool,
        typer.Option("--labels", help="Also find label issues and outliers with a pretrained network (about 10 ms per image)."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Report every problem in IMAGES: unreadable files, duplicates, leaks, classes, image quality."""
    checked = automl_tl.check(images, labels=labels, progress=ConsoleProgress())
    index, report = checked.index, checked.report
    from automl_tl import data

    if fix is not None:
        with writing(fix):
            data.write_fixes(fix, data.propose_fixes(index, report))
    if as_json:
        _print_all(index, report)
    else:
        _show(index, report)
    if not index.images:
        raise NoImagesError(images, f"{index.num_files} files, all listed above")
    serious = len(index.rejected) + report.num_warnings
    if strict and serious:
        raise DataError(
            f"{images}: {len(index.rejected)} files rejected, {report.num_warnings} warnings; --strict allows none."
        )


@app.command(epilog="Example: tl data split ./images --seed 1 --out split.json")
def split(
    images: Images,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the split, the same as for `tl auto fit --seed`.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the split to this JSON file.", show_default=False, callback=file_to_write),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Split written by --out whose assignments are kept. Default: that of the last `tl auto fit`."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which split each image is assigned to; near-duplicates and groups stay together."""
    from automl_tl import data

    saved = data.read_split(keep) if keep else None
    index = data.scan(data.open_source(images), cache_dir=cache_dir(), progress=ConsoleProgress())
    report = data.audit(index)
    data.check_learnable(index, report)
    made, report = data.divide(index, report, seed=seed, saved=saved, folder=splits_dir())
    if out is not None:
        with writing(out), out.open("w", encoding="utf-8") as opened:
            data.write_split(opened, made)
    if as_json:
        data.write_split(result.file, made)
        result.file.write("\n")
        return
    counts = data.count_by_split(index, report, made)
    rows = [(name, *(counts[part][name] for part in counts)) for name in index.classes]
    total = ("all", *(sum(counts[part].values()) for part in counts))
    result.print(table("class", *counts, rows=[*rows, total]))
    result.print(_sum(index, report), markup=False)
    for note in made.notes:
        result.print(note, markup=False)


def _print_all(index: DatasetIndex, report: DataReport) -> None:
    """Index and report as JSON, without pixels."""
    without_pixels = index.model_dump(mode="json", exclude={"images": {"__all__": {"thumbnail"}}})
    both = {"index": without_pixels, "report": report.model_dump(mode="json")}
    json.dump(both, result.file, indent=2, ensure_ascii=False)
    result.file.write("\n")


def _show(index: DatasetIndex, report: DataReport) -> None:
    """Counts, then files, then findings, the worst first."""
    result.print(_sum(index, report), markup=False)
    if index.rejected:
        rows = ((_printable(row.path), row.reason, _printable(row.detail)) for row in index.rejected)
        result.print(table("rejected", "reason", "detail", rows=rows))
    if report.left_out:
        rows = ((_printable(row.path), row.reason, _printable(row.detail)) for row in report.left_out)
        result.print(table("left out", "reason", "detail", rows=rows))
    for finding in report.findings:
        result.print(f"[bold]{finding.severity}[/] {_escaped(finding)}")


def _sum(index: DatasetIndex, report: DataReport) -> str:
    """Where every file went."""
    ignored = ", ".join(f"{number} {why.replace('_', ' ')}" for why, number in index.ignored.items()) or "none"
    used = len(index.images) - len(report.left_out)
    left = f"{len(report.left_out)} left out, {len(index.rejected)} rejected"
    return f"{index.num_files} files: {used} to use, {left}, ignored: {ignored}"


def _printable(text: str) -> str:
    """``text`` on one line, whatever characters a file name holds."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _escaped(finding: Finding) -> str:
    from rich.markup import escape

    paths = finding.paths or tuple(path for group in finding.groups for path in group)
    named = ", ".join(map(_printable, paths[:NUM_NAMED])) + (f" ... {len(paths)} in all" if len(paths) > NUM_NAMED else "")
    return escape(f"{finding.title}. {finding.why} {finding.advice}" + (f"\n  {named}" if named else ""))
