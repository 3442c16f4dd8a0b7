from __future__ import annotations

from pathlib import Path

import pytest
from registry_fakes import FakeClock

from automl_tl_registry import Registry


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def registry(tmp_path: Path, clock: FakeClock) -> Registry:
    return Registry(tmp_path / "registry", clock=clock)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder outside the registry."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder
