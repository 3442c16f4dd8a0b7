"""The real ``tl``, run in this process: the same ``main`` with the same error handling and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from automl_tl.cli import main
from tests.fakes import write_colors

LITE0 = ("--backbone", "lite/efficientnet_lite0")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - it is JSON
        """What it printed, read."""
        return json.loads(self.out)


Tl = Callable[..., Ended]


@pytest.fixture
def tl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tl:
    """Run ``tl`` with the given arguments."""

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr("sys.argv", ["tl", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """A folder of 2 classes with 12 pictures each."""
    return write_colors(tmp_path / "Color Cards", 12)
