"""Quantities as people write them: ``5m``, ``20ms``, ``20MB``, ``1%``, ``mlp:512``; numbers are in the unit of the result."""

from __future__ import annotations

import re
from math import inf

UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
UNITS_MS = {"": 1.0, "ms": 1.0, "s": 1000.0}
UNITS_MIB = {"": 1.0, "MiB": 1.0, "MB": 1e6 / 2**20, "KB": 1e3 / 2**20, "GB": 1e9 / 2**20, "GiB": 1024.0}


def _quantity(value: str | float, units: dict[str, float], example: str) -> float:
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", str(value))
    factors = {name.lower(): factor for name, factor in units.items()}
    if match is None or match[2].lower() not in factors or not 0 < float(match[1]) < inf:
        names = ", ".join(name for name in units if name)
        raise ValueError(f"{value!r} is not a positive quantity; expected a number with a unit ({names}), e.g. {example}")
    return float(match[1]) * factors[match[2].lower()]


def duration_s(value: str | float) -> float:
    """Parse a duration such as ``30s``, ``5m`` or ``1h`` into seconds."""
    return _quantity(value, UNITS_S, "5m")


def latency_ms(value: str | float) -> float:
    """Parse a latency such as ``20ms`` into milliseconds."""
    return _quantity(value, UNITS_MS, "20ms")


def size_mib(value: str | float) -> float:
    """Parse a size such as ``20MB`` into MiB."""
    return _quantity(value, UNITS_MIB, "20MB")


def fraction(value: str | float) -> float:
    """Parse a rate between 0 and 1 such as ``1%`` or ``0.01``."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", str(value))
    rate = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < rate < 1:
        raise ValueError(f"{value!r} is not a rate between 0 and 1; examples: 1%, 0.01")
    return rate


def hidden_dims(text: str) -> tuple[int, ...]:
    """Parse a head such as ``mlp:4096,4096`` into hidden widths; ``linear`` has none."""
    if text == "linear":
        return ()
    match = re.fullmatch(r"mlp:([1-9][0-9]*(?:,[1-9][0-9]*)*)", text)
    if match is None:
        raise ValueError(f"{text!r} is not a head; expected linear or mlp:WIDTH,WIDTH, e.g. mlp:4096,4096")
    return tuple(map(int, match[1].split(",")))
