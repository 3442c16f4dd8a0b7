"""What the doctor says, and what time is left."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from automl_tl.runtime.budget import Deadline, Stopwatch
from automl_tl.runtime.paths import cache_dir, registry_dir
from automl_tl.workflows.doctor import _folder, _torch, explain_import_failure


def test_builds_that_do_not_fit_together_are_explained() -> None:
    said = explain_import_failure("RuntimeError: operator torchvision::nms does not exist")

    assert "don't fit together" in said
    assert "pip install --force-reinstall torch torchvision" in said


def test_a_torch_that_never_arrives_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 120)

    monkeypatch.setattr(subprocess, "run", hangs)

    assert _torch().state == "wrong"


def test_a_folder_that_can_not_be_written_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    assert _folder("cache", tmp_path / "file" / "cache").state == "wrong"
    assert _folder("cache", tmp_path / "new" / "cache").state == "ok"


def test_everything_is_kept_below_tl_home(home: Path) -> None:
    assert registry_dir() == home / "registry"
    assert cache_dir() == home / "cache"


def test_without_tl_home_the_users_folders_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TL_HOME")

    assert "automl_tl" in str(registry_dir())
    assert "automl_tl" in str(cache_dir())


def test_a_deadline_counts_down_and_none_never_ends() -> None:
    ticks = iter([10.0, 14.0, 31.0])
    deadline = Deadline(20.0, lambda: next(ticks))

    assert deadline.left_s == 16.0
    assert deadline.left_s == -1.0
    assert Deadline().left_s == float("inf")


def test_a_deadline_can_be_ended() -> None:
    deadline = Deadline()

    deadline.end()

    assert deadline.left_s == 0.0


def test_a_stopwatch_books_each_step() -> None:
    ticks = iter([0.0, 2.0, 5.0, 6.0])
    watch = Stopwatch(lambda: next(ticks))

    watch.lap("a")
    watch.lap("b")
    watch.lap("a")

    assert watch.seconds == {"a": 3.0, "b": 3.0}
