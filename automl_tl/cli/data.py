"""``tl data``: check images and show their split."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import automl_tl
from automl_tl.cli.model import drift
from automl_tl.cli.options import (
    AsJson,
    ClassesAreFolders,
    CorrectionsFile,
    GroupBy,
    Images,
    Model,
    RegistryDir,
    file_to_write,
    folder_to_write,
    writing,
)
from automl_tl.cli.render import LINE_BREAK, ConsoleProgress, plain, print_json, result, table
from automl_tl.errors import DataError, NoImagesError
from automl_tl.runtime.formatting import percent, printable

if TYPE_CHECKING:
    from automl_tl.values import DataReport, DatasetIndex, Finding

app = typer.Typer(no_args_is_help=True, help="Check images, show their split, and measure drift.")

NUM_NAMED = 3


@app.command(epilog="Example: tl data check ./images --fix fixes.csv")
def check(
    images: Images,
    classes_are_folders: ClassesAreFolders = False,
    corrections: CorrectionsFile = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 3 on any warning or rejected file.")] = False,
    fix: Annotated[
        Path | None,
        typer.Option(
            help="Write proposed fixes to this CSV, for `tl review --fixes`; images are never modified.",
            show_default=False,
            callback=file_to_write,
        ),
    ] = None,
    labels: Annotated[
        bool,
        typer.Option("--labels", help="Also find label issues and outliers with a pretrained network (about 10 ms per image)."),
    ] = False,
    group_by: GroupBy = None,
    as_json: AsJson = False,
) -> None:
    """Report every problem in IMAGES: unreadable files, duplicates, leaks, classes, image quality."""
    with writing(fix) if fix else nullcontext():
        checked = automl_tl.check(
            images,
            labels=labels,
            fix=fix,
            corrections=corrections,
            classes_are_folders=classes_are_folders,
            group_by=group_by,
            progress=ConsoleProgress(),
        )
    index, report = checked.index, checked.report
    if as_json:
        print_json(checked)
    else:
        _show(index, report)
    if not index.images:
        raise NoImagesError(images, f"{index.num_files} files, all listed above")
    if strict and (index.rejected or report.num_warnings):
        raise DataError(
            f"{images}: {len(index.rejected)} files rejected, {report.num_warnings} warnings; --strict allows none."
        )


@app.command(epilog="Example: tl data split ./images --seed 1 --out split.json")
def split(
    images: Images,
    classes_are_folders: ClassesAreFolders = False,
    corrections: CorrectionsFile = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the split, the same as for `tl auto fit --seed`.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the split to this JSON file.", show_default=False, callback=file_to_write),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Split written by --out whose assignments are kept. Default: that of the last `tl auto fit`."),
    ] = None,
    group_by: GroupBy = None,
    as_json: AsJson = False,
) -> None:
    """Show which split each image is assigned to; near-duplicates and groups stay together."""
    with writing(out) if out else nullcontext():
        dataset = automl_tl.split(
            images,
            seed=seed,
            out=out,
            keep=keep,
            corrections=corrections,
            classes_are_folders=classes_are_folders,
            group_by=group_by,
            progress=ConsoleProgress(),
        )
    if as_json:
        print_json(dataset.split)
        return
    counts = {split: Counter(record.label for record in records) for split, records in dataset.records.items()}
    rows = [(name, *(counts[split][name] for split in counts)) for name in dataset.index.classes]
    total = ("all", *(sum(counts[split].values()) for split in counts))
    result.print(f"recognized: {printable(dataset.index.layout)}", markup=False)
    result.print(table("class", *counts, rows=[*rows, total]))
    result.print(_summarize(dataset.index, dataset.report), markup=False)
    for note in dataset.split.notes:
        result.print(plain(note))


@app.command(epilog="Example: tl data export ./flowers --corrections flowers.corrections.csv --out ./flowers-corrected")
def export(
    images: Images,
    out: Annotated[
        Path, typer.Option(help="Folder to write; it must be empty or missing.", show_default=False, callback=folder_to_write)
    ],
    corrections: CorrectionsFile = None,
    with_splits: Annotated[
        bool, typer.Option("--split", help="Write train/, validation/ and test/ as `tl auto fit` splits the images.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the split, the same as for `tl auto fit --seed`.")] = 0,
    classes_are_folders: ClassesAreFolders = False,
    as_json: AsJson = False,
) -> None:
    """Copy the images that `tl auto fit` would use, bytes unchanged, into one folder per class; given splits are kept.

    manifest.csv lists the path, label, digest and origin of each copy.
    """
    with writing(out):
        exported = automl_tl.export_data(
            images,
            out=out,
            split=with_splits,
            seed=seed,
            corrections=corrections,
            classes_are_folders=classes_are_folders,
            progress=ConsoleProgress(),
        )
    if as_json:
        print_json(exported)
        return
    copied = ", ".join(f"{count} {name}" for name, count in exported.num_images.items())
    left_out = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in exported.left_out.items()) or "none"
    result.print(plain(f"{exported.folder}: {copied} images in {len(exported.classes)} classes; left out: {left_out}"))
    if exported.corrections:
        result.print(plain(f"corrections: {exported.corrections.words}"))


app.command("drift", epilog="Example: tl data drift flowers@production ./new-photos")(drift)


@app.command("next", epilog="Example: tl data next flowers ./unlabeled --num 100 --out to-label")
def next_(
    model: Model,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE", help="Unlabeled images: files, folders, patterns, lists or archives.", show_default=False
        ),
    ],
    num: Annotated[int, typer.Option(min=1, help="Number of images to choose.")] = 50,
    out: Annotated[
        Path | None,
        typer.Option(help="Copy the chosen images into this folder.", show_default=False, callback=folder_to_write),
    ] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """List the unlabeled images whose labels would teach MODEL the most: uncertain, and unlike each other."""
    chosen = automl_tl.next_labels(model, inputs, num=num, out=out, registry=registry, progress=ConsoleProgress())
    if as_json:
        print_json(chosen)
        return
    rows = (
        (
            rank,
            one.path,
            f"{one.label} {percent(one.probability)}",
            f"{one.runner_up} {percent(one.runner_up_probability)}",
            "yes" if one.ood_score > 1 else "",
        )
        for rank, one in enumerate(chosen.images, 1)
    )
    result.print(table("", "image", "most probable", "next", "out of distribution", rows=rows))
    left_out = f"{chosen.num_known} labeled already, {chosen.num_copies} copies, {chosen.num_unreadable} unreadable"
    result.print(
        plain(f"{len(chosen.images)} of {chosen.num_images} unlabeled images ({left_out}). {chosen.method}"), soft_wrap=True
    )


def _show(index: DatasetIndex, report: DataReport) -> None:
    """Print counts, then files, then findings, the worst first."""
    result.print(f"recognized: {printable(index.layout)}", markup=False)
    result.print(_summarize(index, report), markup=False)
    for title, files in (("rejected", index.rejected), ("left out", report.left_out)):
        if files:
            rows = ((file.path, file.reason.replace("_", " "), file.detail) for file in files)
            result.print(table(title, "reason", "detail", rows=rows))
    for finding in report.findings:
        result.print(f"[bold]{finding.severity}[/] {plain(_describe(finding), keep=LINE_BREAK)}")


def _summarize(index: DatasetIndex, report: DataReport) -> str:
    """Return how many files there are, by destination."""
    ignored = ", ".join(f"{number} {reason.replace('_', ' ')}" for reason, number in index.ignored.items()) or "none"
    used = len(index.images) - len(report.left_out)
    unused = f"{len(report.left_out)} left out, {len(index.rejected)} rejected"
    corrections = f"; corrections: {report.corrections.words}" if report.corrections else ""
    return f"{index.num_files} files: {used} to use, {unused}, ignored: {ignored}{corrections}"


def _describe(finding: Finding) -> str:
    paths = finding.paths or tuple(path for group in finding.groups for path in group)
    named = ", ".join(map(printable, paths[:NUM_NAMED])) + (f" ... {len(paths)} in all" if len(paths) > NUM_NAMED else "")
    return printable(f"{finding.title}. {finding.why} {finding.advice}") + (f"\n  {named}" if named else "")
