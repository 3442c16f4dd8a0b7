"""The documentation names existing commands, options and JSON keys, and all of them."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import automl_tl
from automl_tl import values
from automl_tl.cli.app import command as tl_command
from automl_tl.evaluation.drift import Drift
from automl_tl.exports import Exported
from automl_tl.plugin_host import PluginEntry
from automl_tl.reports import ReportFacts
from automl_tl.workflows.constraints import ConstraintOptions
from automl_tl.workflows.evaluate import ModelEvaluation
from automl_tl.workflows.review import ReviewQueue
from automl_tl_registry.values import AliasChange, Tenure

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]


def list_commands(group: Any, prefix: str = "tl") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - Typer's own click
    """Yield the full name and the object of every command."""
    for name, command in group.commands.items():
        full_name = f"{prefix} {name}"
        if hasattr(command, "commands"):
            yield from list_commands(command, full_name)
        else:
            yield full_name, command


TL = tl_command()
COMMANDS = dict(list_commands(TL))
JSON_ROWS = {
    name: row
    for row in re.findall(r"^\| `tl .*$", (ROOT / "docs" / "json.md").read_text(), flags=re.MULTILINE)
    for name in re.findall(r"`(tl [a-z ]+)`", row.split("|")[1])
}
GROUPS = [
    ["--help"],
    *([option] for parameter in TL.params for option in parameter.opts),
    *([name.split()[1]] for name in COMMANDS if name.count(" ") == 2),
]  # named without a command
PRINTED: dict[str, type[BaseModel]] = {
    "tl auto plan": values.Plan,
    "tl auto fit": values.FitOutcome,
    "tl bench": values.BenchCell,
    "tl data drift": Drift,
    "tl data split": values.SplitAssignment,
    "tl evaluate": ModelEvaluation,
    "tl export": Exported,
    "tl plugins backbones": values.BackboneCard,
    "tl plugins list": PluginEntry,
    "tl predict": values.Prediction,
    "tl registry history": Tenure,
    "tl registry promote": AliasChange,
    "tl report": ReportFacts,
    "tl review": ReviewQueue,
}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_describes_every_command_and_option(name: str) -> None:
    command = COMMANDS[name]

    assert command.help
    undescribed = [option.name for option in command.params if option.param_type_name == "option" and not option.help]
    assert not undescribed


def commands_on(page: Path) -> Iterator[str]:
    """Yield every `tl ...` of a page: in fenced or indented blocks, with or without a prompt, and inline."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    for fenced, indented in re.findall(r"^```\w*\n(.*?)^```|((?:^    .*\n)+)", text, flags=re.MULTILINE | re.DOTALL):
        yield from re.findall(r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*tl (.*)$", fenced or indented, flags=re.MULTILINE)
    yield from re.findall(r"`tl ([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_names_existing_commands_and_options(page: Path) -> None:
    for command in commands_on(page):
        words = [word for word in shlex.split(command, comments=True) if word != "--no-plugins"]
        name = next((n for n in (f"tl {' '.join(words[:2])}", f"tl {words[0]}") if n in COMMANDS), None)
        assert name is not None or words[0].isupper() or words in GROUPS, command
        if name is not None:
            known = {option for parameter in COMMANDS[name].params for option in parameter.opts} | {"--help"}
            used = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert used <= known, command


PYTHON = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL), 1)
]


@pytest.mark.parametrize("block", PYTHON)
def test_python_calls_existing_functions_with_existing_arguments(block: str) -> None:
    for call in (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        if re.fullmatch(r"automl_tl\.\w+", name):
            function = getattr(automl_tl, name.removeprefix("automl_tl."))
            known = set(inspect.signature(function).parameters)
            if "options" in known:
                known |= ConstraintOptions.__annotations__.keys()
            assert {keyword.arg for keyword in call.keywords} <= known, ast.unparse(call)


@pytest.mark.parametrize("name", ["backbones.md", "export.md", "guide.md", "plugin-authors.md", "trust.md"])
def test_commands_on_finds_the_commands_of_a_page(name: str) -> None:
    assert len(list(commands_on(ROOT / "docs" / name))) >= 3


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_json_page_describes_every_command(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in COMMANDS[name].params)
    assert name in JSON_ROWS


@pytest.mark.parametrize(("name", "printed"), PRINTED.items(), ids=PRINTED)
def test_json_page_names_every_key(name: str, printed: type[BaseModel]) -> None:
    missing = [key for key in printed.model_fields if f"`{key}`" not in JSON_ROWS[name]]

    assert not missing


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_page_links_to_pages_of_the_site_only(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")) if ":" not in link]

    assert [link for link in links if not (page.parent / link).resolve().is_relative_to(ROOT / "docs")] == []


def test_decision_index_lists_every_record() -> None:
    folder = ROOT / "docs" / "decisions"
    records = sorted(page.name for page in folder.glob("[0-9]*.md"))

    assert sorted(re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", (folder / "README.md").read_text())) == records
