"""Commands that answer at once import no heavy package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import automl_tl

PROGRAM = """
import sys
from automl_tl.cli import main
sys.argv = ["tl", *{arguments!r}]
try:
    main()
except SystemExit as exit:
    assert not exit.code, exit.code
heavy = {{"torch", "torchvision", "timm", "sklearn", "scipy", "pyarrow"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["auto", "fit", "--help"], ["registry", "list"], ["plugins", "list"]], ids=" ".join
)
def test_quick_commands_import_no_heavy_package(arguments: list[str]) -> None:
    completed = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arguments=arguments)], capture_output=True, text=True, check=False
    )

    assert completed.returncode == 0, completed.stderr


def test_cli_imports_neither_pydantic_nor_sqlite() -> None:
    code = "import sys, automl_tl.cli; print({'pydantic', 'automl_tl.values', 'sqlite3'} & set(sys.modules))"

    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert completed.stdout == "set()\n"


def test_package_imports_names_when_used() -> None:
    assert automl_tl.Constraints(seed=3).seed == 3
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        automl_tl.Nonsense  # noqa: B018 - the access is tested
