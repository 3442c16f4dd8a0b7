"""Installed distributions for tests: a module and a dist-info folder, as importlib.metadata expects."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import pytest

__all__ = ["SOUND_STRATEGY", "Package", "importable", "install", "strategy_source"]

HEADER = """
from __future__ import annotations
from automl_tl.contracts import Backbone, BackboneCard, Expectation, Head, Phase, Preprocessing, Recipe, Situation, Strategy
"""


@dataclass(frozen=True)
class Package:
    """One distribution with one module of the same name."""

    name: str
    source: str
    entry_points: Mapping[str, str] = field(default_factory=dict)  # "strategies.my_name" -> "Class"
    contract: str | None = "v1"
    version: str = "1.0"
    header: str = HEADER

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")

    @property
    def entry_points_txt(self) -> str:
        lines = [] if self.contract is None else [f"[automl_tl.contract]\nversion = {self.contract}"]
        for key, attribute in self.entry_points.items():
            group, _, name = key.partition(".")
            lines.append(f"[automl_tl.{group}]\n{name} = {self.module}:{attribute}")
        return "\n".join(lines) + "\n"


@contextmanager
def importable(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put ``folder`` on ``sys.path`` until ``patch`` is undone; modules imported from it are unloaded at the end."""
    patch.setattr(sys, "path", [str(folder), *sys.path])
    patch.setattr(sys, "dont_write_bytecode", True)  # a module rewritten within a second must not be read from a .pyc
    importlib.invalidate_caches()
    yield
    for name, module in list(sys.modules.items()):
        if name.startswith("tl_") or Path(getattr(module, "__file__", None) or "/").is_relative_to(folder):
            del sys.modules[name]


def install(site: Path, package: Package) -> Path:
    """Write ``package`` into ``site``, a folder on ``sys.path``, and return its dist-info folder."""
    (site / f"{package.module}.py").write_text(package.header + dedent(package.source))
    info = site / f"{package.module}-{package.version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n")
    (info / "entry_points.txt").write_text(package.entry_points_txt)
    return info


def strategy_source(name: str, recipe: str = "return Recipe(head=Head(solver='ridge'))", **more: str) -> str:
    """Return the source of a strategy class ``Made`` with these method bodies; ``before`` comes above it."""
    expect = more.get("expect", "return Expectation(suits=True, gain=-0.01, why='always possible')")
    return f"""
{dedent(more.get("before", ""))}

class Made(Strategy):
    "Made for a test."

    name = {name!r}
    summary = "made for a test"
    {more.get("options", "")}

    def recipe(self, situation: Situation) -> Recipe:
        {recipe}

    def expect(self, situation: Situation) -> Expectation:
        {expect}
"""


SOUND_STRATEGY = Package("tl-sound", strategy_source("sound"), {"strategies.sound": "Made"})
