"""Every test has a home of its own and one thread for torch; nothing of the user's is read or written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `tl` sets it, before anything imports torch


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``TL_HOME`` that only this test knows."""
    place = tmp_path / "home"
    monkeypatch.setenv("TL_HOME", str(place))
    monkeypatch.delenv("TL_DISABLE_PLUGINS", raising=False)
    return place
