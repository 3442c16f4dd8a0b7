"""What answers at once must not load torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from automl_tl.cli import main
sys.argv = ["tl", *{arguments!r}]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
heavy = {{"torch", "torchvision", "timm", "sklearn", "scipy", "pyarrow", "accelerate"}} & set(sys.modules)
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
