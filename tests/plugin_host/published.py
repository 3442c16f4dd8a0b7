"""Real distributions in a virtual environment: wheels that pip builds and installs offline.

The virtual environment also sees the packages of the environment that runs the tests, so that torch is not installed twice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Environment", "build_wheels", "make_environment"]

OFFLINE = ("--no-deps", "--no-index", "--disable-pip-version-check", "--quiet")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the data directory of its commands."""

    folder: Path
    home: Path

    def install(self, wheels: Sequence[Path]) -> None:
        """Install ``wheels`` without dependencies."""
        self.run("-m", "pip", "install", *OFFLINE, *wheels)

    def tl(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``tl`` and return the process, successful or not."""
        return self._run(["-m", "automl_tl", *map(str, arguments)], variables)

    def run(self, *arguments: str | Path, cwd: Path | None = None, **variables: str) -> str:
        """Run Python, which must succeed, and return its output."""
        process = self._run(list(map(str, arguments)), variables, cwd)
        assert process.returncode == 0, f"{' '.join(map(str, arguments))}\n{process.stdout[-4000:]}\n{process.stderr[-4000:]}"
        return process.stdout

    def _run(
        self, arguments: list[str], variables: dict[str, str], cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **ONE_THREAD, "TL_HOME": str(self.home), **variables}
        python = self.folder / "bin" / "python"
        return subprocess.run(
            [python, *arguments], capture_output=True, text=True, env=environment, cwd=cwd, timeout=300, check=False
        )


def make_environment(folder: Path) -> Environment:
    """Create a virtual environment in ``folder`` that sees the packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=120)
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    purelib = Path(sysconfig.get_paths()["purelib"])
    # addsitedir, not a plain path: the .pth file of an editable automl-tl must be read as well
    (site / "here.pth").write_text(f"import site; site.addsitedir({str(purelib)!r})\n")
    return Environment(folder / "venv", folder / "home")


def build_wheels(sources: Sequence[Path], into: Path) -> list[Path]:
    """Build wheels of copies of the projects in ``sources``."""
    copies = [into / "sources" / source.name for source in sources]
    for source, copied in zip(sources, copies, strict=True):
        shutil.copytree(source, copied, ignore=shutil.ignore_patterns("__pycache__", "dist", ".*_cache"))
    options = ["--no-build-isolation", *OFFLINE, "--wheel-dir", str(into)]
    command = [sys.executable, "-m", "pip", "wheel", *options, *map(str, copies)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    return sorted(into.glob("*.whl"))
