"""Data-parallel training in two processes that talk over gloo."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from automl_tl.errors import TrainingError
from automl_tl.training.distributed import Ranks, check_processes
from automl_tl.training.loop import train
from tests.training.test_loop import EVERYTHING, TOP, make_run, press_ctrl_c, before_epoch, same, weights


def test_train_in_two_processes_equals_one_and_repeats_itself(tmp_path: Path) -> None:
    alone = make_run(tmp_path / "alone", EVERYTHING, TOP)
    expected = train(alone)
    runs = [replace(make_run(tmp_path / name, EVERYTHING, TOP), processes=2) for name in ("first", "second")]

    state, _ = map(train, runs)

    assert same(weights(runs[0].blocks), weights(runs[1].blocks))
    print([row["loss"] for row in state.curves], [row["loss"] for row in expected.curves])
    for name, tensor in weights(alone.blocks).items():
        print(name, (tensor - weights(runs[0].blocks)[name]).abs().max())
