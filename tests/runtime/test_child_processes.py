"""Child processes import nothing from the working directory."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from automl_tl.runtime.child_processes import SAFE_PATH, run_python, safe_import_path

OWN_NAMES = ("types", "random", "queue", "pickle", "signal", "numpy", "token")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a folder of a user's files with names of the standard library."""
    for name in OWN_NAMES:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the user\\'s own file was imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(SAFE_PATH, raising=False)
    return tmp_path


@pytest.mark.parametrize("arguments", [["-c", f"import {', '.join(OWN_NAMES)}"], ["-m", "random"]], ids=["-c", "-m"])
def test_run_python_imports_nothing_from_the_working_directory(project: Path, arguments: list[str]) -> None:
    done = run_python(arguments)

    assert (done.returncode, done.stderr) == (0, "")


def test_run_python_keeps_the_path_that_the_user_set(project: Path) -> None:
    (project / "own").mkdir()
    (project / "own" / "mine.py").write_text("print('mine')")

    assert run_python(["-m", "mine"], environment={"PYTHONPATH": str(project / "own")}).stdout == "mine\n"


def test_run_python_reads_any_letters(project: Path) -> None:
    assert run_python(["-c", "print('d\\xfcne \\u2603')"], environment={"LC_ALL": "C"}).stdout == "d\xfcne \u2603\n"


def test_safe_import_path_holds_for_workers_and_ends(project: Path) -> None:
    with safe_import_path(), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(abs, -1).result() == 1
    assert SAFE_PATH not in os.environ


@pytest.mark.parametrize("options", [["-P"], []], ids=["-P", "plain"])
def test_main_module_imports_nothing_from_the_working_directory(project: Path, options: list[str]) -> None:
    if not options:  # Python imports these before any code of ours
        for name in ("types", "signal"):
            (project / f"{name}.py").unlink()

    done = subprocess.run([sys.executable, *options, "-m", "automl_tl", "--help"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
