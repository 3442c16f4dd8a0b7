"""The helpers of ``automl_tl.testing``; ``tests/plugin_host/broken.py`` covers the checks themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from automl_tl.errors import PluginError
from automl_tl.testing import BACKBONE_CHECKS, STRATEGY_CHECKS, Check, find_plugins, parametrize_with_checks


@pytest.mark.parametrize("check", [*STRATEGY_CHECKS, *BACKBONE_CHECKS], ids=lambda check: check.__name__)
def test_every_check_has_name_and_description(check: Check) -> None:
    assert check.__name__.startswith("check_")  # type: ignore[attr-defined]
    assert (check.__doc__ or "").splitlines()[0].endswith(".")


@parametrize_with_checks("tail", expected_failures={"check_loads": "it would pass"})
def test_parametrize_marks_expected_failures(check: Check, request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("xfail")

    assert (marker is not None) == (check.name == "check_loads")
    if marker is not None:
        pytest.xfail(marker.kwargs["reason"])


def test_parametrize_rejects_unknown_checks() -> None:
    with pytest.raises(ValueError, match="unknown checks: check_lods"):
        parametrize_with_checks("tail", expected_failures={"check_lods": "a typo"})


@pytest.mark.parametrize("name", ["no_such_plugin", "tail/model"])
def test_find_plugins_rejects_unknown_names(name: str) -> None:
    with pytest.raises(PluginError, match="No installed plugin or distribution"):
        find_plugins(name)


def test_import_needs_neither_torch_nor_pytest() -> None:
    script = "import sys, automl_tl.testing; print({'torch', 'pytest'} & set(sys.modules))"

    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert process.stdout == "set()\n"
