"""The guide and the reference for plugin authors say what is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from automl_tl.plugin_host.scaffold import write_package
from automl_tl.plugin_host.timeout import ANSWER_LIMIT_S
from tests.plugin_host.distributions import Package, install

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "plugin-authors.md").read_text("utf-8")
REFERENCE = (ROOT / "docs" / "contract-reference.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_reference.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, f"{done.stderr}Run `make docs`."


def test_the_module_in_the_guide_is_what_the_scaffold_writes(tmp_path: Path) -> None:
    _, files = write_package("strategy", "careful", tmp_path)

    (module,) = [file for file in files if file.name == "__init__.py"]
    assert module.read_text("utf-8") == BLOCKS[0]


def test_the_code_in_the_guide_runs(site: Path) -> None:
    install(site, Package("automl-tl-careful", BLOCKS[0], {"strategies.careful": "Careful"}, header=""))
    namespace: dict[str, object] = {"__name__": "guide"}

    for block in BLOCKS:
        exec(compile(block, "docs/plugin-authors.md", "exec"), namespace)

    assert "CHECKS" in namespace


def test_the_guide_and_the_reference_give_an_answer_the_same_time() -> None:
    assert f"doesn't answer within {ANSWER_LIMIT_S:g} seconds" in GUIDE
    assert f"with their cards | {ANSWER_LIMIT_S:g} s |" in REFERENCE


@pytest.mark.parametrize("kind", ["strategy", "backbone", "both"])
def test_the_wheel_holds_the_templates(kind: str) -> None:
    packed = {Path(file.relative_path).as_posix() for file in WheelBuilder(str(ROOT)).recurse_included_files()}

    folder = ROOT / "automl_tl" / "plugin_host" / "scaffold" / "templates" / kind
    templates = {file.relative_to(ROOT).as_posix() for file in folder.rglob("*.jinja")}
    assert templates
    assert templates <= packed
