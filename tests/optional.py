"""Packages that only some environments have."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest


def import_of_dev_group(name: str) -> Any:  # noqa: ANN401 - a module without types
    """Import a package of the dependency group ``dev``; the test is skipped where only the group ``test`` is installed."""
    has_dev_group = find_spec("mypy") is not None
    reason = f"{name} is missing" if has_dev_group else f"{name} belongs to the group dev"
    return pytest.importorskip(name, reason=reason)
