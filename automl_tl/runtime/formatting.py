"""Fractions as people read them, the same on the screen, in the report and in every sentence."""

from __future__ import annotations

from math import ceil, floor

__all__ = ["percent", "percent_range"]


def percent(fraction: float | None) -> str:
    """``fraction`` in percent: 0.925 is "92.5%", ``None`` is "-". Whole numbers have no decimals; only a true 1 is "100%"."""
    if fraction is None:
        return "-"
    shown = f"{100 * fraction:.1f}".removesuffix(".0")
    if shown == "100" and fraction < 1:
        shown = "99.9"
    return f"{shown}%"


def percent_range(interval: tuple[float, float] | None) -> str:
    """An interval of fractions in whole percent, such as "80-97%", rounded outwards; ``None`` is "-"."""
    if interval is None:
        return "-"
    return f"{floor(100 * interval[0] + 1e-9)}-{ceil(100 * interval[1] - 1e-9)}%"
