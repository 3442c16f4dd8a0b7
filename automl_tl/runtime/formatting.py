"""Fractions as percentages and shortened lists, formatted the same on the screen, in reports and in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Final

MAX_LISTED: Final = 5


def percent(fraction: float | None) -> str:
    """Format a percentage: 0.925 is "92.5%", ``None`` is "-". Only exactly 1 is "100%"."""
    if fraction is None:
        return "-"
    text = f"{100 * fraction:.1f}".removesuffix(".0")
    if text == "100" and fraction < 1:
        text = "99.9"
    return f"{text}%"


def percent_range(interval: tuple[float, float] | None) -> str:
    """Format an interval of fractions in whole percent, rounded outward and joined by an en dash; ``None`` is "-"."""
    if interval is None:
        return "-"
    return f"{floor(100 * interval[0] + 1e-9)}\N{EN DASH}{ceil(100 * interval[1] - 1e-9)}%"


def first_few(texts: Sequence[str], noun: str) -> list[str]:
    """Return the first five of ``texts``, and then how many more there are.

    Args:
        texts: any number.
        noun: plural of what a text is about.
    """
    more = len(texts) - MAX_LISTED
    return [*texts[:MAX_LISTED], *([f"and {more} more {noun}"] if more > 0 else [])]
