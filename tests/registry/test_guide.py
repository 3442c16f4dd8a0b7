"""The guide is correct: examples run, tables and the error tree are complete."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from automl_tl_registry import GatePolicy, Registry, RegistryError, errors
from automl_tl_registry.gates import read_policy

GUIDE = Path(__file__).parents[2] / "docs" / "registry.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_guide_examples_run(tmp_path: Path) -> None:
    scope = {"folder": tmp_path, "np": np}

    for block in blocks("python"):
        exec(block, scope)  # noqa: S102,RUF100 - our own guide


def test_guide_shows_the_default_rules(tmp_path: Path) -> None:
    (block,) = blocks("toml")
    (tmp_path / "gates.toml").write_text(block)

    assert read_policy(tmp_path, "insects") == GatePolicy()
    assert set(tomllib.loads(block)["default"]) | set(re.findall(r"`(\w+)`", GUIDE.read_text())) >= set(GatePolicy.model_fields)


def test_guide_lists_every_method_with_its_options() -> None:
    rows = [line for line in GUIDE.read_text().splitlines() if line.startswith("| `")]
    for name, method in inspect.getmembers(Registry, inspect.isfunction):
        if name.startswith("_"):
            continue
        (signature,) = re.findall(rf"`{name}\((.*?)\)`", "\n".join(rows))
        if not signature.endswith("..."):
            named = [word.strip() for word in signature.split(",") if word.strip() not in ("*", "")]
            assert named == [each for each in inspect.signature(method).parameters if each != "self"], name


def leaves(root: type[RegistryError]) -> list[type[RegistryError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in leaves(child))]


def test_errors_docstring_draws_the_whole_tree() -> None:
    drawn = re.findall(r"(\w+Error)\b", (errors.__doc__ or "").split("Every text")[0])
    codes = dict(re.findall(r"(\w+Error)\b.*exit (\d+)", errors.__doc__ or ""))

    assert sorted(drawn) == sorted(each.__name__ for each in leaves(RegistryError))
    for child in RegistryError.__subclasses__():
        assert {each.exit_code for each in leaves(child)} == {int(codes[child.__name__])}


@pytest.mark.parametrize("code", sorted({each.exit_code for each in leaves(RegistryError)} - {1}))
def test_guide_lists_every_exit_code(code: int) -> None:
    assert f"\n| {code} | " in GUIDE.read_text()
