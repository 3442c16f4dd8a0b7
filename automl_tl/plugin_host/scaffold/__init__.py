"""Writes a new plugin package from the templates beside this file: the start of somebody's own strategy or backbone."""

from __future__ import annotations

import keyword
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from automl_tl import contracts
from automl_tl.errors import PluginError
from automl_tl.plugin_host import discover
from automl_tl.plugin_host.discovery import name_problem

__all__ = ["write_package"]

TEMPLATES: Final = Path(__file__).parent / "templates"
SUFFIX: Final = ".jinja"
LONGEST_NAME: Final = 30  # lines of the written code stay within 120 characters


def write_package(kind: str, name: str, into: Path) -> tuple[Path, list[Path]]:
    """The new folder ``automl-tl-<name>`` in ``into``, and the files in it.

    Args:
        kind: ``strategy`` or ``backbone``.
        name: of the entry point.
        into: an existing or new folder.

    Raises:
        PluginError: the name can't be one, or the folder is there already; nothing is written then.
    """
    if problem := name_problem(name) or _taken(kind, name):
        raise PluginError(f"A {kind} can't be called {name!r}: {problem}. An example of a good name: careful_tuning")
    folder = into / f"automl-tl-{name.replace('_', '-')}"
    if folder.exists():
        raise PluginError(f"{folder} is there already. Choose another name or another --into; nothing was written.")
    return folder, list(_write(kind, name, folder))


def _taken(kind: str, name: str) -> str | None:
    """Who or what has the name already, or ``None``."""
    if len(name) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} characters"
    if keyword.iskeyword(name) or hasattr(contracts, _class_name(name)):
        return "Python or the contract uses this word"
    owners = [plugin.distribution for plugin in discover().installed if plugin.name == name]
    if owners or find_spec(f"automl_tl_{name}"):
        return f"{', '.join(owners) or f'the module automl_tl_{name}'} is installed and has this name"
    return None


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _write(kind: str, name: str, folder: Path) -> Iterator[Path]:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # no HTML
    facts = {
        "name": name,
        "kind": kind,
        "class_name": _class_name(name),
        "package": f"automl_tl_{name}",
        "distribution": folder.name,
        "contract": f"v{contracts.CONTRACT_VERSION}",
    }
    for root in (TEMPLATES / "both", TEMPLATES / kind):
        for template in sorted(root.rglob(f"*{SUFFIX}")):
            place = template.relative_to(root).as_posix().removesuffix(SUFFIX).replace("PACKAGE", facts["package"])
            file = folder / place.replace("DOT_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(environment.from_string(template.read_text("utf-8")).render(facts), "utf-8")
            yield file
