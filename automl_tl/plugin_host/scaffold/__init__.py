"""Create a new plugin package from the templates beside this file."""

from __future__ import annotations

import keyword
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from automl_tl import contracts
from automl_tl.errors import PluginError
from automl_tl.plugin_host import discover
from automl_tl.plugin_host.discovery import name_problem

__all__ = ["write_package"]

TEMPLATES: Final = Path(__file__).parent / "templates"
MAX_NAME: Final = 30  # characters; keeps the lines of the generated code within 120


def write_package(kind: str, name: str, into: Path) -> tuple[Path, list[Path]]:
    """Create the folder ``automl-tl-<name>`` and return it with the files in it.

    Args:
        kind: ``strategy`` or ``backbone``.
        name: name of the entry point.
        into: parent folder; created if it does not exist.

    Raises:
        PluginError: the name is invalid or taken, or the folder exists; nothing is written.
    """
    from jinja2 import Environment, StrictUndefined

    if problem := name_problem(name) or _name_conflict(name):
        raise PluginError(f"A {kind} can't be called {name!r}: {problem}. An example of a good name: careful_tuning")
    folder = into / f"automl-tl-{name.replace('_', '-')}"
    if folder.exists():
        raise PluginError(f"{folder} already exists. Choose another name or another --into; nothing was written.")
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # no HTML
    variables = {
        "name": name,
        "kind": kind,
        "class_name": _class_name(name),
        "package": f"automl_tl_{name}",
        "distribution": folder.name,
        "contract": f"v{contracts.CONTRACT_VERSION}",
    }
    files = []
    for root in (TEMPLATES / "both", TEMPLATES / kind):
        for template in sorted(root.rglob("*.jinja")):
            path = template.relative_to(root).as_posix().removesuffix(".jinja")
            file = folder / path.replace("PACKAGE", variables["package"]).replace("DOT_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(environment.from_string(template.read_text("utf-8")).render(variables), "utf-8")
            files.append(file)
    return folder, files


def _name_conflict(name: str) -> str | None:
    if len(name) > MAX_NAME:
        return f"it is longer than {MAX_NAME} characters"
    if keyword.iskeyword(name) or hasattr(contracts, _class_name(name)):
        return "it is a keyword of Python or a name of the contract"
    owners = [plugin.distribution for plugin in discover().installed if plugin.name == name]
    if owners or find_spec(f"automl_tl_{name}"):
        return f"{', '.join(owners) or f'the module automl_tl_{name}'} is installed and has this name"
    return None


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
