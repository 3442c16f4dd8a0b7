"""Options shared by several commands, and parsers for quantities with units."""

from __future__ import annotations

import json
import re
from math import inf, isfinite
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AsJson",
    "Images",
    "Model",
    "RegistryDir",
    "duration_s",
    "hidden_dims",
    "latency_ms",
    "size_mib",
    "strategy_options",
]

UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
UNITS_MS = {"": 1.0, "ms": 1.0, "s": 1000.0}
UNITS_MIB = {"": 1.0, "MiB": 1.0, "MB": 1e6 / 2**20, "KB": 1e3 / 2**20, "GB": 1e9 / 2**20, "GiB": 1024.0}


def _quantity(text: str, units: dict[str, float], example: str) -> float:
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", text)
    known = {name.lower(): factor for name, factor in units.items()}
    if match is None or match[2].lower() not in known or not 0 < float(match[1]) < inf:
        named = ", ".join(name for name in units if name)
        raise typer.BadParameter(f"{text!r} is not a quantity above 0 with one of the units {named}, for example {example}")
    return float(match[1]) * known[match[2].lower()]


def duration_s(text: str) -> float:
    """Parse a duration such as ``30s``, ``5m`` or ``1h`` into seconds."""
    return _quantity(text, UNITS_S, "5m")


def latency_ms(text: str) -> float:
    """Parse a latency such as ``20ms`` into milliseconds."""
    return _quantity(text, UNITS_MS, "20ms")


def size_mib(text: str) -> float:
    """Parse a size such as ``20MB`` into MiB."""
    return _quantity(text, UNITS_MIB, "20MB")


def hidden_dims(text: str) -> tuple[int, ...]:
    """Parse a head such as ``mlp:4096,4096`` into hidden widths; ``linear`` has none."""
    if text == "linear":
        return ()
    match = re.fullmatch(r"mlp:([1-9][0-9]*(?:,[1-9][0-9]*)*)", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a head; expected linear or mlp:WIDTH,WIDTH, for example mlp:4096,4096")
    return tuple(map(int, match[1].split(",")))


def strategy_options(pairs: list[str]) -> dict[str, str | float | int | bool]:
    """Parse strategy options such as ``block_decay=0.7``."""
    options: dict[str, str | float | int | bool] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not an option; expected NAME=VALUE, for example block_decay=0.7")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if isinstance(value, float) and not isfinite(value):
            raise typer.BadParameter(f"{pair!r} is not a finite number; expected NAME=VALUE, for example block_decay=0.7")
        options[name] = value if isinstance(value, str | float | int | bool) else text
    return options


Images = Annotated[
    Path,
    typer.Argument(
        help="Folder of class folders (or of train/, val/, test/), table, archive or dataset file.", show_default=False
    ),
]
Model = Annotated[str, typer.Argument(help="Model: NAME (latest), NAME@3 or NAME@production.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RegistryDir = Annotated[
    Path | None, typer.Option("--registry", help="Registry folder. Default: below TL_HOME, or the user's data directory.")
]
