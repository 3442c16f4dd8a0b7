"""The guide and the reference for plugin authors match the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from automl_tl.plugin_host.scaffold import write_package
from tests.plugin_host.distributions import Package, install

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "plugin-authors.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_reference.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, f"{done.stderr}Run `make docs`."


def test_guide_shows_the_module_that_the_scaffold_writes(tmp_path: Path) -> None:
    _, files = write_package("strategy", "careful", tmp_path)

    (module,) = [file for file in files if file.name == "__init__.py"]
    assert module.read_text("utf-8") == BLOCKS[0]


def test_code_in_guide_runs(site: Path) -> None:
    install(site, Package("automl-tl-careful", BLOCKS[0], {"strategies.careful": "Careful"}, header=""))
    namespace: dict[str, object] = {"__name__": "guide"}

    for block in BLOCKS:
        exec(compile(block, "docs/plugin-authors.md", "exec"), namespace)

    assert "test_strategy_keeps_contract" in namespace


@pytest.mark.parametrize("kind", ["strategy", "backbone", "both"])
def test_wheel_contains_the_templates(kind: str) -> None:
    packed = {Path(file.relative_path).as_posix() for file in WheelBuilder(str(ROOT)).recurse_included_files()}

    folder = ROOT / "automl_tl" / "plugin_host" / "scaffold" / "templates" / kind
    templates = {file.relative_to(ROOT).as_posix() for file in folder.rglob("*.jinja")}
    assert templates
    assert templates <= packed
