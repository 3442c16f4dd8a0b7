"""Fractions as percentages."""

from __future__ import annotations

import pytest

from automl_tl.runtime.formatting import percent, percent_range


@pytest.mark.parametrize(
    ("fraction", "text"), [(None, "-"), (0, "0%"), (0.925, "92.5%"), (0.75, "75%"), (0.9996, "99.9%"), (1, "100%")]
)
def test_percent_is_100_only_for_exactly_1(fraction: float | None, text: str) -> None:
    assert percent(fraction) == text


@pytest.mark.parametrize(
    ("interval", "text"),
    [(None, "-"), ((0.801, 0.969), "80\N{EN DASH}97%"), ((0.8, 0.97), "80\N{EN DASH}97%"), ((0.0, 1.0), "0\N{EN DASH}100%")],
)
def test_percent_range_rounds_outward(interval: tuple[float, float] | None, text: str) -> None:
    assert percent_range(interval) == text
