"""``tl auto fit --processes 2``: one version, by two training processes; launchers that start `tl` several times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import run_tl
from tests.fakes import write_colors
from tests.toy_plugin import TOY, toy_backbone

TAIL = ("--strategy", "tail", "--backbone", TOY)


def test_fit_in_two_processes_publishes_one_version(tmp_path: Path) -> None:
    images = write_colors(tmp_path / "images", 40)
    with toy_backbone(tmp_path):
        fitted = run_tl("auto", "fit", images, "--json", "--processes", "2", *TAIL)
        versions = run_tl("registry", "list", "--json")

    assert fitted.code == 0, fitted.err
    assert fitted.json["plan"]["processes"] == 2
    assert "2 processes train it" in fitted.json["plan"]["reasons"]
    assert fitted.json["test"]["accuracy"] >= 0.9
    assert len(versions.json) == 1


def test_fit_under_torchrun_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")

    result = run_tl("auto", "fit", write_colors(tmp_path / "images", 12))

    assert result.code == 4
    assert "`tl auto fit --processes 2` starts the processes itself" in result.message
    assert not (tmp_path / "home" / "registry").exists()
