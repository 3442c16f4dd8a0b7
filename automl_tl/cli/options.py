"""Options shared by several commands, parsers for quantities with units, and checks of output paths."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, isfinite
from pathlib import Path
from typing import Annotated

import typer

from automl_tl.runtime.formatting import printable
from automl_tl.runtime.resources import writing_to

UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
UNITS_MS = {"": 1.0, "ms": 1.0, "s": 1000.0}
UNITS_MIB = {"": 1.0, "MiB": 1.0, "MB": 1e6 / 2**20, "KB": 1e3 / 2**20, "GB": 1e9 / 2**20, "GiB": 1024.0}

Images = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGES",
        help="Folder of class folders (or of train/, val/, test/), table, archive or dataset file.",
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
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME (latest version), NAME@3 or NAME@production.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RegistryDir = Annotated[
    Path | None, typer.Option("--registry", help="Registry folder. Default: below TL_HOME, or the user's data directory.")
]


def _quantity(text: str, units: dict[str, float], example: str) -> float:
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", text)
    factors = {name.lower(): factor for name, factor in units.items()}
    if match is None or match[2].lower() not in factors or not 0 < float(match[1]) < inf:
        names = ", ".join(name for name in units if name)
        raise typer.BadParameter(
            f"{text!r} is not a positive quantity; expected a number with a unit ({names}), e.g. {example}"
        )
    return float(match[1]) * factors[match[2].lower()]


def duration_s(text: str) -> float:
    """Parse a duration such as ``30s``, ``5m`` or ``1h`` into seconds."""
    return _quantity(text, UNITS_S, "5m")


def latency_ms(text: str) -> float:
    """Parse a latency such as ``20ms`` into milliseconds."""
    return _quantity(text, UNITS_MS, "20ms")


def size_mib(text: str) -> float:
    """Parse a size such as ``20MB`` into MiB."""
    return _quantity(text, UNITS_MIB, "20MB")


def fraction(text: str) -> float:
    """Parse a rate between 0 and 1 such as ``1%`` or ``0.01``."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", text)
    value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < value < 1:
        raise typer.BadParameter(f"{text!r} is not a rate between 0 and 1; examples: 1%, 0.01")
    return value


def hidden_dims(text: str) -> tuple[int, ...]:
    """Parse a head such as ``mlp:4096,4096`` into hidden widths; ``linear`` has none."""
    if text == "linear":
        return ()
    match = re.fullmatch(r"mlp:([1-9][0-9]*(?:,[1-9][0-9]*)*)", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a head; expected linear or mlp:WIDTH,WIDTH, e.g. mlp:4096,4096")
    return tuple(map(int, match[1].split(",")))


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
