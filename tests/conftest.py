"""Every test has its own data directory and one thread for numeric libraries; nothing of the user's is read or written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before anything imports torch or numpy: several test processes share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory (``TL_HOME``) that only this test knows."""
    directory = tmp_path / "home"
    monkeypatch.setenv("TL_HOME", str(directory))
    monkeypatch.delenv("TL_DISABLE_PLUGINS", raising=False)
    return directory
