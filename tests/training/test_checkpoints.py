"""Checkpoints are replaced atomically, on every platform."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from automl_tl.training import checkpoints
from automl_tl.training.checkpoints import Checkpoint, Checkpoints


def checkpoint(epochs_done: int) -> Checkpoint:
    return Checkpoint(0, epochs_done, {"notes": ["a"]}, {"network": {"weight": torch.arange(3.0)}})


def test_checkpoints_load_the_last_one_saved(tmp_path: Path) -> None:
    run = Checkpoints(tmp_path, "run")

    for epochs_done in (1, 2):  # the second replaces the first: on Windows a rename would fail
        run.save(checkpoint(epochs_done))

    loaded = run.load()
    assert loaded is not None
    assert (loaded.epochs_done, loaded.facts) == (2, {"notes": ["a"]})
    assert torch.equal(loaded.tensors["network"]["weight"], torch.arange(3.0))
    assert [file.name for file in run.file.parent.iterdir()] == [run.file.name]


@pytest.mark.usefixtures("windows")
def test_checkpoints_are_replaced_and_removed_while_a_loaded_one_is_in_use(tmp_path: Path) -> None:
    run = Checkpoints(tmp_path, "run")
    run.save(checkpoint(1))

    resumed = run.load()
    run.save(checkpoint(2))  # Windows refuses if the resumed tensors were still mapped from the file
    run.remove()

    assert resumed is not None
    assert torch.equal(resumed.tensors["network"]["weight"], torch.arange(3.0))
    assert not run.file.exists()


def test_checkpoints_flush_a_writable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.write(descriptor, b"")))  # fails if read-only

    Checkpoints(tmp_path, "run").save(checkpoint(1))

    assert len(flushed) == 1


def test_checkpoints_ignore_another_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Checkpoints(tmp_path, "run")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT", 1)
        run.save(checkpoint(1))

    assert run.load() is None


def test_checkpoints_ignore_a_damaged_file(tmp_path: Path) -> None:
    run = Checkpoints(tmp_path, "run")
    run.save(checkpoint(1))
    run.file.write_bytes(run.file.read_bytes()[:20])

    assert run.load() is None


def test_checkpoints_ignore_a_half_written_file(tmp_path: Path) -> None:
    run = Checkpoints(tmp_path, "run")
    run.save(checkpoint(1))
    run.file.write_bytes(run.file.read_bytes()[:-4] + b"\0\0\0\0")

    assert run.load() is None


def test_checkpoints_are_given_up_without_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", full)
    run = Checkpoints(tmp_path, "run", every_s=0)

    run.save(checkpoint(1))
    run.save(checkpoint(2))

    assert len(caplog.records) == 1
    assert "The disk is full" in caplog.text
    assert not run.is_due
    assert run.load() is None
