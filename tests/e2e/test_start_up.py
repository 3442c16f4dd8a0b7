"""What answers at once must not load torch."""

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
except SystemExit as ended:
    assert not ended.code, ended.code
heavy = {{"torch", "torchvision", "timm", "sklearn", "scipy", "pyarrow"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["auto", "fit", "--help"], ["registry", "list"], ["plugins", "list"]], ids=" ".join
)
def test_questions_are_answered_without_torch(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arguments=arguments)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_the_command_line_is_there_before_the_values() -> None:
    code = "import sys, automl_tl.cli; print({'pydantic', 'automl_tl.values', 'sqlite3'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_the_values_of_the_package_are_loaded_when_they_are_used() -> None:
    assert automl_tl.Constraints(seed=3).seed == 3
    with pytest.raises(AttributeError, match="no attribute 'Wish'"):
        automl_tl.Wish  # noqa: B018 - the access is what is tested
