"""The documentation site: ``make docs`` builds it from these pages, the code and the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import automl_tl

GENERATED = Path(__file__).parent / "generated"

project = "automl_tl"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "automl_tl"
html_static_path = ["_static"]
html_css_files = ["wide_tables.css"]

myst_heading_anchors = 4  # headings are link targets, as where the pages are read as files
autodoc_typehints = "description"
napoleon_numpy_docstring = False
copybutton_prompt_text = "$ "

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True


def write_command_line() -> None:
    """Write the page of all commands and options, with Typer's own generator."""
    page = [sys.executable, "-m", "typer", "automl_tl.cli.app", "utils", "docs", "--name", "tl", "--title", "Command line"]
    subprocess.run([*page, "--output", str(GENERATED / "cli.md")], check=True, stdout=subprocess.DEVNULL)


def write_python() -> None:
    """Write the page of all public names of ``automl_tl``."""
    kinds = [(name, "class" if name[0].isupper() else "function") for name in automl_tl.__all__]
    names = "\n".join(f".. auto{kind}:: {name}" for name, kind in kinds if callable(getattr(automl_tl, name)))
    text = "# Python reference\n\nHow to use it: [Python](../python.md).\n\n```{eval-rst}\n.. currentmodule:: automl_tl\n\n"
    (GENERATED / "python.md").write_text(f"{text}{names}\n```\n", encoding="utf-8")


def add_decisions(app: object, name: str, source: list[str]) -> None:
    """Put the decision records below their page in the navigation; on a code host the page needs no such list."""
    if name == "decisions/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n0*\n```\n"


def setup(app: object) -> None:
    """Called by Sphinx."""
    GENERATED.mkdir(exist_ok=True)
    write_command_line()
    write_python()
    app.connect("source-read", add_decisions)  # type: ignore[attr-defined]
