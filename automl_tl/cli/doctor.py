"""``tl doctor``: is this installation sound, and what will it use?"""

from __future__ import annotations

import typer

from automl_tl.cli.options import AsJson
from automl_tl.cli.render import table
from automl_tl.cli.telling import print_json, result

__all__ = ["doctor"]


def doctor(as_json: AsJson = False) -> None:
    """Check the installation: packages that fit together, weights, devices, folders. Exit code 1 if something is wrong."""
    from automl_tl.plugin_host import discover
    from automl_tl.workflows.doctor import examine

    findings = examine(discover())
    if as_json:
        print_json([finding.model_dump() for finding in findings])
    else:
        marks = {"ok": "ok", "note": "note", "wrong": "WRONG"}
        result.print(table("", "what", "found", rows=((marks[f.state], f.what, f.found) for f in findings)))
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)
