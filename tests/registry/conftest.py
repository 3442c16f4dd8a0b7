from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from automl_tl_registry import Registry
from tests.registry.registry_fakes import FakeClock


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory where there is such a thing: these tests fsync thousands of times."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="automl_tl-test-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


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
