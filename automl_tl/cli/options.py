"""Options that several commands share, and how quantities with units are read."""

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
        raise typer.BadParameter(f"{text!r} is no quantity above 0 with one of the units {named}; an example: {example}")
    return float(match[1]) * known[match[2].lower()]


def duration_s(text: str) -> float:
    """Seconds in a text such as ``30s``, ``5m``, ``1h``."""
    return _quantity(text, UNITS_S, "5m")


def latency_ms(text: str) -> float:
    """Milliseconds in a text such as ``20ms``."""
    return _quantity(text, UNITS_MS, "20ms")


def size_mib(text: str) -> float:
    """MiB in a text such as ``20MB``."""
    return _quantity(text, UNITS_MIB, "20MB")


def hidden_dims(text: str) -> tuple[int, ...]:
    """Widths of the hidden layers in a text such as ``mlp:4096,4096``; none in ``linear``."""
    if text == "linear":
        return ()
    match = re.fullmatch(r"mlp:([1-9][0-9]*(?:,[1-9][0-9]*)*)", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no head; expected linear or mlp:WIDTH,WIDTH, an example: mlp:4096,4096")
    return tuple(map(int, match[1].split(",")))


def strategy_options(pairs: list[str]) -> dict[str, str | float | int | bool]:
    """Options in texts such as ``block_decay=0.7``."""
    options: dict[str, str | float | int | bool] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is no option; expected NAME=VALUE, an example: block_decay=0.7")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if isinstance(value, float) and not isfinite(value):
            raise typer.BadParameter(f"{pair!r} is no number that an option can have; an example: block_decay=0.7")
        options[name] = value if isinstance(value, str | float | int | bool) else text
    return options


Images = Annotated[
    Path,
    typer.Argument(help="Folder of class folders or of train/, val/, test/; table, archive or data set.", show_default=False),
]
Model = Annotated[str, typer.Argument(help="NAME (latest), NAME@3 or NAME@production.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RegistryDir = Annotated[
    Path | None, typer.Option("--registry", help="Folder of the registry. Default: below TL_HOME, else the user's data folder.")
]
