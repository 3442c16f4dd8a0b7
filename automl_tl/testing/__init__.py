"""Contract checks for plugins, run by pytest.

    from automl_tl.testing import Check, parametrize_with_checks

    @parametrize_with_checks("careful")
    def test_plugin_keeps_contract(check: Check) -> None:
        check()

``tl plugins check careful`` runs the same ones. Importing this package imports neither torch nor pytest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest.mock import patch

from automl_tl.errors import PluginError
from automl_tl.testing.backbone_checks import BACKBONE_CHECKS as _BACKBONE_CHECKS
from automl_tl.testing.package_checks import PACKAGE_CHECKS
from automl_tl.testing.plugin_under_test import PluginUnderTest, StrategyUnderTest, find_plugins
from automl_tl.testing.strategy_checks import STRATEGY_CHECKS as _STRATEGY_CHECKS
from automl_tl.testing.toy_task import ToyBackbone, toy_situation
from automl_tl.values import Value

if TYPE_CHECKING:
    import pytest

__all__ = [
    "BACKBONE_CHECKS",
    "STRATEGY_CHECKS",
    "Check",
    "CheckResult",
    "ToyBackbone",
    "checks_of",
    "find_plugins",
    "parametrize_with_checks",
    "run_checks",
    "toy_situation",
]

STRATEGY_CHECKS: tuple[Callable[..., None], ...] = (*PACKAGE_CHECKS, *_STRATEGY_CHECKS)
BACKBONE_CHECKS: tuple[Callable[..., None], ...] = (*PACKAGE_CHECKS, *_BACKBONE_CHECKS)


@dataclass(frozen=True)
class Check:
    """One check of one plugin; a call raises ``AssertionError`` if the plugin breaks the contract."""

    plugin: PluginUnderTest
    function: Callable[[Any], None]

    def __call__(self) -> None:
        """Run the check."""
        self.function(self.plugin)

    @property
    def name(self) -> str:
        """Name of the check, e.g. ``check_loads``."""
        return self.function.__name__

    def __str__(self) -> str:
        return f"{self.plugin.name}-{self.name}"


class CheckResult(Value):
    """The outcome of a check; ``reason`` says why it failed or was skipped."""

    check: str
    outcome: Literal["passed", "failed", "skipped"]
    reason: str = ""


def checks_of(plugin: PluginUnderTest) -> list[Check]:
    """Return all checks for the kind of ``plugin``."""
    functions = STRATEGY_CHECKS if isinstance(plugin, StrategyUnderTest) else BACKBONE_CHECKS
    return [Check(plugin, function) for function in functions]


def parametrize_with_checks(*names: str, expected_failures: Mapping[str, str] | None = None) -> pytest.MarkDecorator:
    """Parametrize a pytest test function, whose argument is ``check``, with the checks of installed plugins.

    Args:
        names: strategies, providers, backbones ``provider/model``, or distributions.
        expected_failures: check -> reason; pytest reports these checks as xfailed.

    Raises:
        PluginError: nothing of that name is installed.
        ValueError: ``expected_failures`` names an unknown check.
    """
    import pytest

    checks = [check for name in names for plugin in find_plugins(name) for check in checks_of(plugin)]
    marks = {name: pytest.mark.xfail(reason=reason, strict=True) for name, reason in (expected_failures or {}).items()}
    if unknown := marks.keys() - {check.name for check in checks}:
        raise ValueError(f"expected_failures names unknown checks: {', '.join(sorted(unknown))}")
    parameters = [pytest.param(check, id=str(check), marks=marks.get(check.name, ())) for check in checks]
    return pytest.mark.parametrize("check", parameters)


def run_checks(plugin: PluginUnderTest, on_result: Callable[[CheckResult], None]) -> list[CheckResult]:
    """Run all checks of ``plugin`` with pytest.

    Args:
        plugin: from ``find_plugins``.
        on_result: called after each check.

    Raises:
        PluginError: pytest is not installed.
    """
    try:
        import pytest
    except ModuleNotFoundError as error:
        raise PluginError("The checks need pytest. Install it: pip install 'automl-tl[testing]'") from error
    collector = _ResultCollector(checks_of(plugin), on_result)
    # Neither configuration nor plugins of the current folder's own test suite may interfere.
    options = ["-c", os.devnull, "--noconftest", "--disable-plugin-autoload", "-p", "no:cacheprovider", "-p", "no:terminal"]
    with patch.dict(os.environ, {"PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": ""}):
        status = pytest.main([*options, str(Path(__file__).with_name("test_contract.py"))], plugins=[collector])
    if status == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if len(collector.results) < len(collector.checks):
        raise PluginError(f"pytest ended after {len(collector.results)} of {len(collector.checks)} checks of {plugin}.")
    return collector.results


class _ResultCollector:
    """A pytest plugin that passes checks to ``test_contract.py`` and collects the results."""

    def __init__(self, checks: Sequence[Check], on_result: Callable[[CheckResult], None]) -> None:
        self.checks, self.on_result = checks, on_result
        self.results: list[CheckResult] = []

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize the test."""
        metafunc.parametrize("check", self.checks, ids=str)

    def pytest_runtest_makereport(self, item: pytest.Function, call: pytest.CallInfo[None]) -> None:
        """Collect the result of one check."""
        import pytest

        if call.when != "call":
            return
        result = CheckResult(check=self.checks[len(self.results)].name, outcome="passed")
        if call.excinfo:
            error = call.excinfo.value
            outcome = "skipped" if isinstance(error, pytest.skip.Exception) else "failed"
            reason = str(error) if isinstance(error, AssertionError | pytest.skip.Exception) else call.excinfo.exconly()
            result = result.model_copy(update={"outcome": outcome, "reason": reason})
        self.results.append(result)
        self.on_result(result)
