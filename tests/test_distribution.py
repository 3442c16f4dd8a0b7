"""What is released, and what the package index and `tl doctor` say about it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from automl_tl.workflows.doctor import EXTRAS
from hatch_build import IndexPage

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LINK = re.compile(r"\]\(([^)]+)\)")


def index_page(repository: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    IndexPage(str(ROOT), {"repository": repository}).update(metadata)
    return metadata


def test_index_page_links_to_the_repository() -> None:
    page = index_page("https://forge.example/automl_tl/")

    links = LINK.findall(page["readme"]["text"])
    assert "https://forge.example/automl_tl/blob/HEAD/docs/guide.md" in links
    assert "https://forge.example/automl_tl/raw/HEAD/docs/report.png" in links
    assert all(link.startswith("https://") for link in [*links, *page["urls"].values()])


def test_index_page_without_repository_has_no_broken_link() -> None:
    page = index_page("")

    assert [link for link in LINK.findall(page["readme"]["text"]) if not link.startswith("https://")] == []
    assert "| Guide | a project from images to production |" in page["readme"]["text"]
    assert page["urls"] == {}


def test_readme_links_to_existing_files() -> None:
    links = [link for link in LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")) if ":" not in link]

    assert len(links) > 10
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []


def test_doctor_knows_every_extra() -> None:
    assert set(EXTRAS) == set(PROJECT["project"]["optional-dependencies"])


SKIPPED = """
import pytest

def test_of_an_import():
    pytest.importorskip("not_there")

@pytest.mark.skipif(True, reason="the extra [onnx] is not installed")
def test_of_an_extra():
    pass

@pytest.mark.skipif(True, reason="no CUDA device here")
def test_of_a_device():
    pass
"""


def test_missing_packages_fail_where_none_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_skipped.py").write_text(SKIPPED)
    (tmp_path / "test_module.py").write_text('import pytest\n\npytest.importorskip("not_there")\n')
    options = ["-p", "tests.conftest", "-p", "no:randomly", "--continue-on-collection-errors", f"--rootdir={tmp_path}"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]

    monkeypatch.setenv("AUTOML_TL_REQUIRE_EXTRAS", "1")
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert "1 failed, 1 skipped, 2 errors in" in ended.stdout  # the device is the one that is skipped
    assert ended.returncode == 1
