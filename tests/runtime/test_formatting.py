"""One way to write a fraction, wherever it is shown."""

from __future__ import annotations

import pytest

from automl_tl.cli import registry, render
from automl_tl.evaluation import words
from automl_tl.runtime.formatting import percent, percent_range


@pytest.mark.parametrize(
    ("fraction", "shown"), [(None, "-"), (0, "0%"), (0.925, "92.5%"), (0.75, "75%"), (0.9996, "99.9%"), (1, "100%")]
)
def test_only_a_true_1_is_100_percent(fraction: float | None, shown: str) -> None:
    assert percent(fraction) == shown


@pytest.mark.parametrize(
    ("interval", "shown"), [(None, "-"), ((0.801, 0.969), "80-97%"), ((0.8, 0.97), "80-97%"), ((0.0, 1.0), "0-100%")]
)
def test_intervals_are_rounded_outwards(interval: tuple[float, float] | None, shown: str) -> None:
    assert percent_range(interval) == shown


@pytest.mark.parametrize("module", [render, registry, words], ids=lambda module: module.__name__)
def test_screen_and_sentences_share_the_one_way(module: object) -> None:
    assert vars(module)["percent"] is percent
    assert vars(module)["percent_range"] is percent_range
