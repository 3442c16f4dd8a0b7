"""The toy backbone as an installed plugin, for fits that take seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.plugin_host.distributions import Package, importable, install

SOURCE = """
from automl_tl.testing import ToyBackbone

def backbones():
    return [ToyBackbone()]
"""
TOY = "toy/three_blocks"


@contextmanager
def toy_backbone(folder: Path) -> Iterator[None]:
    """Install ``toy/three_blocks`` in ``folder``, with a data directory of its own, while the context is open."""
    with pytest.MonkeyPatch.context() as patch, importable(folder, patch):
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("TL_HOME", str(folder / "home"))
        install(folder, Package("tl-toy", SOURCE, {"backbones.toy": "backbones"}))
        yield
