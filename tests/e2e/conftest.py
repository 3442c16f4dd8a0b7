"""The real ``tl``, run in this process (the same ``main``, errors and exit codes), and a data directory that is fitted once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from automl_tl.cli import main
from automl_tl_registry import Registry
from tests.fakes import write_colors

LITE0 = ("--backbone", "lite/efficientnet_lite0")


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - it is JSON
        """What it printed, parsed."""
        return json.loads(self.out)

    @property
    def message(self) -> str:
        """Standard error without line breaks and boxes."""
        return " ".join(self.err.replace("│", " ").split())


Tl = Callable[..., Result]


def run_tl(*arguments: str | Path) -> Result:
    """Run ``tl`` with ``arguments``."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", ["tl", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    return Result(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture
def tl() -> Tl:
    """Run ``tl`` with the given arguments, in the data directory of this test."""
    return run_tl


@pytest.fixture(scope="session")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 2 classes with 12 images each."""
    return write_colors(tmp_path_factory.mktemp("images") / "Color Cards", 12)


@dataclass(frozen=True)
class Fitted:
    """A data directory with color-cards@1, which is in production, and color-cards@2, fitted with the same seed.

    Attributes:
        home: the data directory.
        outcomes: what ``tl auto fit --json`` printed.
        activations: names of the files in the activation cache after each fit.
    """

    home: Path
    outcomes: list[Any]
    activations: list[list[str]]


@pytest.fixture(scope="session")
def fitted(colors: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Two fits and a promotion, made once for all test processes; not to be changed by tests."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    home, record = shared / "fitted", shared / "fitted.json"
    with FileLock(f"{record}.lock"):
        if not record.exists():
            record.write_text(json.dumps(_fit_twice(colors, home)))
    outcomes, activations = json.loads(record.read_text())
    return Fitted(home, outcomes, activations)


def _fit_twice(colors: Path, home: Path) -> tuple[list[Any], list[list[str]]]:
    outcomes, activations = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_HOME", str(home))
        for _ in range(2):
            outcomes.append(run_tl("auto", "fit", colors, *LITE0, "--json").json)
            activations.append(sorted(file.name for file in (home / "cache" / "activations").rglob("*.npy")))
        assert run_tl("registry", "promote", "color-cards@1", "production", "--reason", "the first").code == 0
    return outcomes, activations


@pytest.fixture
def registry(fitted: Fitted, home: Path) -> Registry:
    """The registry in a copy of the fitted data directory, which is that of this test."""
    shutil.copytree(fitted.home, home)
    return Registry(home / "registry")
