"""Options shared by several commands, parsers of their values, and checks of output paths."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from automl_tl.runtime import quantities
from automl_tl.runtime.formatting import printable
from automl_tl.runtime.resources import writing_to

Parsed = TypeVar("Parsed")

Images = Annotated[
    str,
    typer.Argument(
        metavar="IMAGES",
        help="Folder of class folders (or of train/, val/, test/), table, archive or dataset file, or a URL of these.",
        show_default=False,
    ),
]
ClassesAreFolders = Annotated[
    bool,
    typer.Option(
        "--classes-are-folders", help="Every folder at the top of IMAGES is a class, even if it is called like a split."
    ),
]
CorrectionsFile = Annotated[
    Path | None,
    typer.Option(
        "--corrections",
        metavar="FILE",
        help="Corrected labels and excluded images, as `tl review` writes them; matched by the bytes of each image.",
        show_default=False,
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="order|folder|REGEX|COLUMN|none",
        help="Images that stay in one split: blocks of successive files, folders, what REGEX finds in the path (its first "
        "parentheses, if any), or a COLUMN of the table. Default: by order, where it predicts similarity.",
        show_default=False,
    ),
]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME (latest version), NAME@3 or NAME@production.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="EXECUTOR",
        help="Where the work runs: `ray` (the cluster of this machine, else a new one), `ray://HOST:10001`, another installed "
        "executor, or a name in executors.toml. Default: this process.",
        show_default=False,
    ),
]
Remote = Annotated[
    str | None,
    typer.Option(
        "--remote", metavar="URL", help="Use the shared registry at URL, e.g. s3://bucket/models.", show_default=False
    ),
]
RegistryDir = Annotated[
    Path | None, typer.Option("--registry", help="Registry folder. Default: below TL_HOME, or the user's data directory.")
]


def _parser(parse: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
    """Return ``parse`` with usage errors, which name the option."""

    def parse_option(text: str) -> Parsed:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    return parse_option


duration_s = _parser(quantities.duration_s)
latency_ms = _parser(quantities.latency_ms)
size_mib = _parser(quantities.size_mib)
fraction = _parser(quantities.fraction)
hidden_dims = _parser(quantities.hidden_dims)


def class_weights(texts: list[str]) -> str | dict[str, float]:
    """Parse class weights: ``balanced``, ``sqrt``, ``none``, or one ``CLASS=WEIGHT`` each."""
    if len(texts) == 1 and texts[0] in ("balanced", "sqrt", "none"):
        return texts[0]
    weights: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = 0.0
        if not name or not 0 < weight < inf:
            raise typer.BadParameter(
                f"{text!r} is not a class weight; expected balanced, sqrt, none, or CLASS=WEIGHT, above 0, e.g. cat=5"
            )
        weights[name] = weight
    return weights


def strategy_options(pairs: list[str]) -> dict[str, str | float | int | bool]:
    """Parse strategy options such as ``block_decay=0.7``."""
    options: dict[str, str | float | int | bool] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not an option; expected NAME=VALUE, e.g. block_decay=0.7")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if isinstance(value, float) and not isfinite(value):
            raise typer.BadParameter(f"{pair!r} is not a finite number; expected NAME=VALUE, e.g. block_decay=0.7")
        options[name] = value if isinstance(value, str | float | int | bool) else text
    return options


MaxError = Annotated[
    float | None,
    typer.Option(
        parser=fraction,
        metavar="RATE",
        help="Abstain so that, with 95% confidence, at most RATE of the returned predictions are wrong.",
        show_default=False,
    ),
]
RejectOod = Annotated[bool, typer.Option("--reject-ood/--no-reject-ood", help="Abstain on images unlike anything in training.")]


def file_to_write(file: Path | None) -> Path | None:
    """Reject an output file that cannot be written, before the work starts; an option callback."""
    if file is not None:
        with writing(file):
            folder = file.absolute().parent
            if file.is_dir():
                raise typer.BadParameter(f"{file} is a folder; expected a file")
            if not folder.is_dir():
                raise typer.BadParameter(f"the folder {folder} does not exist; create it or choose another file")
            _check_permission(file if file.exists() else folder)
    return file


def folder_to_write(folder: Path | None) -> Path | None:
    """Reject an output folder that cannot be written, before the work starts; an option callback."""
    if folder is not None:
        if any("\ud800" <= character <= "\udfff" for character in str(folder)):
            raise typer.BadParameter(f"the name {printable(str(folder))} is not valid UTF-8; choose another folder")
        with writing(folder):
            existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
            if not existing.is_dir():
                raise typer.BadParameter(f"{existing} is a file; expected a folder")
            _check_permission(existing)
    return folder


def _check_permission(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise typer.BadParameter(f"no permission to write to {path}; choose another path")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into a usage error that names ``path``; a full disk is a ``ResourceError``."""
    try:
        with writing_to(path):
            yield
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path} ({error.strerror}); choose another path") from error
