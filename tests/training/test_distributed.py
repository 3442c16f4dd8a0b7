"""Data-parallel training in two processes that talk over gloo."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from automl_tl.errors import PlanError, TrainingError
from automl_tl.training.distributed import Ranks, check_processes, is_split, num_processes, reject_launcher
from automl_tl.training.loop import PhaseTrainer, train
from automl_tl.training.run import TrainingRun
from tests.training.test_loop import EVERYTHING, TOP, before_epoch, make_run, press_ctrl_c, same, weights

CPU = torch.device("cpu")


def in_two_processes(place: Path) -> TrainingRun:
    """A run of three epochs of all blocks and three of the last block, on cached views."""
    return replace(make_run(place, EVERYTHING, TOP), processes=2)


def test_train_in_two_processes_equals_one_and_resumes_after_a_process_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = make_run(tmp_path / "alone", EVERYTHING, TOP)
    expected = train(alone)
    straight, broken, resumed = in_two_processes(tmp_path / "a"), *(in_two_processes(tmp_path / "b") for _ in range(2))

    # 1) The gradient is that of the whole batch, up to rounding.
    state = train(straight)
    assert [row["loss"] for row in state.curves] == pytest.approx([row["loss"] for row in expected.curves], abs=2e-2)
    assert state.curves[-1]["validation_accuracy"] == pytest.approx(expected.curves[-1]["validation_accuracy"], abs=0.1)
    # 2) A process that is killed ends the others with a clear error, and nothing of the finished epochs is lost.
    with monkeypatch.context() as patch:
        before_epoch(patch, 3, kill_the_other)
        with pytest.raises(TrainingError, match=r"process 2 of 2 was killed by signal 9.*resumes from the last checkpoint"):
            train(broken)
    assert torch.distributed.is_initialized() is False
    # 3) Same seed and number of processes: the same weights, also after the interruption.
    train(resumed)
    assert same(weights(straight.blocks), weights(resumed.blocks))
    assert same(weights(straight.head), weights(resumed.head))


def kill_the_other(trainer: PhaseTrainer) -> None:
    """Kill the second process."""
    assert trainer.ranks is not None
    os.kill(trainer.ranks.pids[0], signal.SIGKILL)


def test_train_in_two_processes_ends_all_with_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = in_two_processes(tmp_path)
    pids: list[int] = []

    def press(trainer: PhaseTrainer) -> None:
        assert trainer.ranks is not None
        pids.extend(trainer.ranks.pids)
        press_ctrl_c(trainer)

    before_epoch(monkeypatch, 2, press)

    state = train(run)

    assert (state.epochs, state.stopped) == (1, True)
    assert state.kept_weights
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_is_split_keeps_batches_whole_for_batch_norm_statistics() -> None:
    blocks = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.Linear(4, 4))
    phases = {
        name: EVERYTHING.model_copy(update={"train_blocks": (block,), "batch_norm": mode})
        for name, block, mode in (("frozen", 0, "frozen"), ("training", 0, "training"), ("no norm", 1, "training"))
    }

    assert {name: is_split(phase, blocks) for name, phase in phases.items()} == {
        "frozen": True,
        "training": False,
        "no norm": True,
    }


def test_ranks_start_nothing_where_one_process_has_to_train(tmp_path: Path) -> None:
    phase = EVERYTHING.model_copy(update={"batch_norm": "training"})

    with Ranks.open(replace(make_run(tmp_path, phase), processes=2)) as ranks:
        assert ranks is None


def test_num_processes_is_one_per_gpu_unless_requested() -> None:
    assert num_processes(None, CPU) == 1
    assert num_processes(3, CPU) == 3


def test_check_processes_names_the_devices_it_found() -> None:
    check_processes(64, CPU)
    with pytest.raises(PlanError, match="mps trains in one process"):
        check_processes(2, torch.device("mps"))
    with pytest.raises(PlanError, match=r"found \d+ GPUs?, expected one for each process"):
        check_processes(1 + torch.cuda.device_count() + 1, torch.device("cuda"))


@pytest.mark.parametrize(("size", "rank"), [("WORLD_SIZE", "RANK"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")])
def test_reject_launcher_names_the_option(size: str, rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rank, "0")
    monkeypatch.setenv(size, "1")
    reject_launcher()
    monkeypatch.setenv(size, "2")

    with pytest.raises(PlanError, match="without it: `tl auto fit --processes 2`"):
        reject_launcher()
