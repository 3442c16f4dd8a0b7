"""Every test has its own data directory and one thread for numeric libraries; nothing of the user's is read or written."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# Set where everything optional is installed, as in .ci/run: a test that is skipped for a missing package or program fails.
# The reason of such a skip says "installed" or "is missing"; pytest.importorskip says the other words.
IS_COMPLETE = "AUTOML_TL_REQUIRE_EXTRAS" in os.environ
FOR_A_MISSING_PACKAGE = re.compile(r"installed|could not import|is missing")
# Their shared code needs the extra [serve], so they cannot even be collected without it.
collect_ignore = ["browser", "server"] if find_spec("starlette") is None and not IS_COMPLETE else []

# Before anything imports torch or numpy: several test processes share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before anything imports huggingface_hub, here or in a child process: plans look whether the hub answers, and no test may.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # the discard port, which is closed


# Everything in them is an integration test; elsewhere a mark says it.
INTEGRATION_FOLDERS = {"browser", "e2e"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the folders for integration tests."""
    for item in items:
        if item.path.parent.name in INTEGRATION_FOLDERS:
            item.add_marker("integration")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory (``TL_HOME``) that only this test knows."""
    directory = tmp_path / "home"
    monkeypatch.setenv("TL_HOME", str(directory))
    monkeypatch.delenv("TL_DISABLE_PLUGINS", raising=False)
    return directory


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail tests that are skipped for a missing package, if none may be missing."""
    return _without_missing_package((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail modules that are skipped for a missing package, if none may be missing."""
    return _without_missing_package((yield))


def _without_missing_package(report: Report) -> Report:
    if IS_COMPLETE and report.outcome == "skipped" and FOR_A_MISSING_PACKAGE.search(str(report.longrepr)):
        report.outcome = "failed"
    return report


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process and its children keep the rules of Windows that ``tests.windows`` imitates."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs the proc file system of Linux")
    from tests.windows import imitate

    folders = (Path(__file__).parent / "imitated_windows", Path(__file__).parents[1], os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
    monkeypatch.setenv("USERNAME", "ann")
    imitate(monkeypatch.setattr, monkeypatch.delattr)
