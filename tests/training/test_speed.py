"""Cached speed measurements."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from automl_tl.training import speed
from automl_tl.training.speed import TrainingSpeed


@pytest.mark.parametrize(
    ("load_then", "load_now", "is_of_this_process", "times"),
    [
        (0.5, 0.1, False, 1),  # it was not busy
        (3.0, 0.1, False, 2),
        (3.0, 4.0, False, 1),  # it is no less busy
        (3.0, 0.1, True, 1),  # a plan of the same command: the fit has no time to measure anew
    ],
)
def test_speed_measured_under_load_is_measured_again_by_a_later_command(
    load_then: float,
    load_now: float,
    is_of_this_process: bool,
    times: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, measured = tmp_path / "kept.json", []

    def measure() -> TrainingSpeed:
        measured.append(1)
        return TrainingSpeed(forward_s=(1.0,), step_s=(2.0,), activations_mib=(3.0,))

    for load in (load_then, load_now):
        monkeypatch.setattr(speed, "_load", lambda load=load: load)
        found = speed._cached(TrainingSpeed, file, measure)
        if not is_of_this_process:
            os.utime(file, (0, 0))

    assert found.forward_s == (1.0,)
    assert len(measured) == times
