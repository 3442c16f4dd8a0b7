"""The built wheel, away from the checkout: everything is in it, entry points are found, a fit runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.fakes import write_colors

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "automl_tl",
    "automl_tl_keras",
    "automl_tl_lite",
    "automl_tl_registry",
    "automl_tl_strategies",
    "automl_tl_timm",
    "automl_tl_torchvision",
}

PACKAGE_FOLDERS = {"automl_tl", "benchmarks", "docs", "examples", "plugins", "registry", "tests"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", *offline, "--target", str(folder / "site"), str(wheel)], check=True)
    with zipfile.ZipFile(wheel) as archive:
        packages = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" not in name}
    assert packages == PACKAGES
    return folder / "site"


def run(installed: Path, home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed), "TL_HOME": str(home)}
    command = [sys.executable, "-m", "automl_tl", *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=home.parent, capture_output=True, text=True, check=False)


def test_wheel_has_all_packages_and_fits(installed: Path, home: Path, tmp_path: Path) -> None:
    colors = write_colors(tmp_path / "colors", 8)

    listed = run(installed, home, "plugins", "list", "--json")
    fitted = run(installed, home, "auto", "fit", colors, "--backbone", "lite/efficientnet_lite0", "--json")

    assert listed.returncode == 0, listed.stderr
    assert {plugin["name"] for plugin in json.loads(listed.stdout)} >= {"lite", "timm", "torchvision", "linear_probe", "tail"}
    assert not any(plugin["problem"] for plugin in json.loads(listed.stdout))
    assert fitted.returncode == 0, fitted.stderr
    assert json.loads(fitted.stdout)["model"] == "colors@1"


def test_wheel_has_both_scripts(installed: Path) -> None:
    assert {script.name for script in (installed / "bin").iterdir()} == {"automl-tl", "tl"}


def test_sdist_has_the_tests_and_no_results(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)], cwd=ROOT, check=True)
    (sdist,) = tmp_path.iterdir()
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"automl_tl/__init__.py", "tests/conftest.py", "docs/guide.md", "hatch_build.py", "LICENSE", "README.md"} <= names
    assert {name.partition("/")[0] for name in names if "/" in name} == PACKAGE_FOLDERS
    assert not any(name.startswith("benchmarks/results") for name in names)
    assert sdist.stat().st_size < 1.5 * 2**20
