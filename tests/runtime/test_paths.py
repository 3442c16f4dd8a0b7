"""Default folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from automl_tl.runtime.paths import cache_dir, registry_dir


def test_paths_are_below_tl_home(home: Path) -> None:
    assert registry_dir() == home / "registry"
    assert cache_dir() == home / "cache"


def test_paths_without_tl_home_are_user_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TL_HOME")

    assert "automl_tl" in str(registry_dir())
    assert "automl_tl" in str(cache_dir())
