"""What the documentation says exists, and what exists is said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from automl_tl.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(group: Any, prefix: str = "tl") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - Typer's own click
    """Every command with its full name."""
    for name, command in group.commands.items():
        full = f"{prefix} {name}"
        if hasattr(command, "commands"):
            yield from commands(command, full)
        else:
            yield full, command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_says_what_it_does(name: str) -> None:
    command = COMMANDS[name]

    assert command.help
    silent = [each.name for each in command.params if each.param_type_name == "option" and not each.help]
    assert not silent


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists_with_its_options(page: Path) -> None:
    for line in re.findall(r"^\s*\$ (tl [a-z].*)$", page.read_text(), flags=re.MULTILINE):
        words = line.partition("#")[0].split()
        name = next((n for n in (" ".join(words[:3]), " ".join(words[:2])) if n in COMMANDS), None)
        assert name is not None or words[1].isupper(), line
        if name is not None:
            known = {option for parameter in COMMANDS[name].params for option in parameter.opts} | {"--help"}
            used = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert used <= known, line


def test_every_command_is_in_the_page_about_json() -> None:
    page = (ROOT / "docs" / "json.md").read_text() + (ROOT / "docs" / "registry.md").read_text()

    for name, command in COMMANDS.items():
        if any("--json" in parameter.opts for parameter in command.params):
            assert name in page, name
