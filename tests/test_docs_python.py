"""The Python examples of README.md and docs/*.md run, on images that a small network can tell apart.

A page's blocks share their names and run in its order, as a reader would paste them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import write_colors
from tests.toy_plugin import toy_backbone

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXECUTED_HERE = ["README.md", "python.md"]
EXECUTED_ELSEWHERE = {
    "backbones.md": "tests/plugins/test_torchvision_encoders.py",
    "export.md": "tests/exports/test_hugging_face.py",
    "plugin-authors.md": "tests/plugin_host/test_docs_for_authors.py",
    "registry.md": "tests/registry/test_guide.py",
    "serve.md": "tests/server/test_endpoints.py",
}
NOT_EXECUTED = {
    "experiments.md": "trains VGG-16 on CIFAR-10",
    "planning.md": "is an extract of `automl_tl.planning.planner` without its imports",
}


def blocks_of(page: str) -> list[str]:
    return BLOCK.findall(next(path for path in PAGES if path.name == page).read_text(encoding="utf-8"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with what the examples read; the only backbone is the toy's."""
    with toy_backbone(tmp_path):
        monkeypatch.setenv("TL_DISABLE_PLUGINS", "lite,timm,torchvision,keras")
        write_colors(tmp_path / "flowers", 16)
        write_colors(tmp_path / "holiday", 1)
        (tmp_path / "holiday" / "red" / "000.png").rename(tmp_path / "photo.jpg")
        monkeypatch.chdir(tmp_path)
        yield tmp_path


@pytest.mark.integration
@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("page", EXECUTED_HERE)
def test_page_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # an example calls basicConfig
    names: dict[str, object] = {}

    for number, block in enumerate(blocks_of(page), 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)

    assert names


def test_every_page_with_python_is_executed_or_says_why() -> None:
    pages = {page.name for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))}

    assert sorted([*EXECUTED_HERE, *EXECUTED_ELSEWHERE, *NOT_EXECUTED]) == sorted(pages)
    for page, test in EXECUTED_ELSEWHERE.items():
        assert page in (ROOT / test).read_text(encoding="utf-8")
