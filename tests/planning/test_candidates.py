"""Expectations of candidates: the value of a trial, and the spread of a test accuracy."""

from __future__ import annotations

import pytest

from automl_tl.planning.candidates import expected_improvement, predictive_sd


def test_expected_improvement_is_small_if_validation_images_cannot_tell_it_from_chance() -> None:
    """0.5 pp behind, give or take one: 2,000 images may tell that it is ahead all the same, 50 cannot."""
    with_50, with_2000 = (expected_improvement(-0.005, 0.01, 0.95, count) for count in (50, 2000))

    assert with_50 < 1e-4
    assert with_2000 > 1e-3


def test_expected_improvement_is_the_gain_if_it_is_certain() -> None:
    assert expected_improvement(0.05, 0.01, 0.8, 50) == pytest.approx(0.05)


def test_predictive_sd_grows_with_the_design_effect() -> None:
    assert predictive_sd(0.9, 100, 50, 4.0) > predictive_sd(0.9, 100, 50, 1.0) == predictive_sd(0.9, 100, 50)


def test_predictive_sd_shrinks_with_more_images() -> None:
    assert predictive_sd(0.9, 100, 20) > predictive_sd(0.9, 100, 1000) > predictive_sd(0.9, 10_000, 1000) > 0
