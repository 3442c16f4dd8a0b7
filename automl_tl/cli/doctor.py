"""``tl doctor``: check the installation."""

from __future__ import annotations

import typer

import automl_tl
from automl_tl.cli.options import AsJson
from automl_tl.cli.render import table
from automl_tl.cli.telling import print_json, result

__all__ = ["doctor"]


def doctor(as_json: AsJson = False) -> None:
    """Check the installation: packages, weights, devices, folders. Exit code 1 if something is wrong."""
    results = automl_tl.doctor()
    if as_json:
        print_json([check.model_dump() for check in results])
    else:
        marks = {"ok": "ok", "note": "note", "wrong": "WRONG"}
        result.print(table("", "check", "result", rows=((marks[c.state], c.what, c.found) for c in results)))
    if any(check.state == "wrong" for check in results):
        raise typer.Exit(1)
