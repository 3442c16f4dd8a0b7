"""``tl``: the groups, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Final, NoReturn

import typer

from automl_tl.cli import auto, bench, cache, data, doctor, evaluate, explain, export, plugins, predict, registry_care, report
from automl_tl.cli.telling import complain
from automl_tl.errors import AutomlTlError
from automl_tl_registry import RegistryError
from automl_tl_registry.error_roots import StorageError

__all__ = ["app", "main"]

EXIT_CODES = """Exit codes: 0 done · 2 wrong usage · 3 data · 4 plan · 5 plugin or weights · 6 not found in the registry ·
7 conflict · 8 gate refused · 9 damaged or disagreeing model · 10 storage · 11 training · 130 interrupted."""

NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT}

app = typer.Typer(
    name="tl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From a folder of images to a classifier that you can trust.",
    epilog=EXIT_CODES,
)
app.add_typer(auto.app, name="auto")
app.add_typer(data.app, name="data")
app.add_typer(registry_care.app, name="registry")
app.add_typer(plugins.app, name="plugins")
app.add_typer(cache.app, name="cache")
app.command(
    "bench", epilog="Example: tl bench ./images --backbone lite/efficientnet_lite0 --strategy linear_probe --strategy tail"
)(bench.bench)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("explain")(explain.explain)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)


@app.callback()
def options(
    no_plugins: Annotated[
        bool, typer.Option("--no-plugins", help="Leave out every plugin that doesn't come with automl-tl.")
    ] = False,
) -> None:
    """Options of every command, in front of its name."""
    if no_plugins:
        from automl_tl.plugin_host.discovery import EVERYBODY, switch_off

        switch_off(EVERYBODY)


def main() -> NoReturn:
    """Run ``tl``; our errors end as one line on stderr and their exit code, anything else keeps its traceback."""
    # torch's threads wait asleep, not spinning: beside other jobs a fit took half the time and 40% of the processor
    # (DECISIONS 20). Read when torch is imported, by new processes as well.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except (AutomlTlError, RegistryError) as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if not _no_room(error):
            raise
        what = getattr(error, "filename", None) or "what was to be written; what is there of it is not whole"
        complain(f"No room is left on the disk for {what}. Free some, or name another place (TMPDIR, for temporary files).")
        sys.exit(StorageError.exit_code)
    sys.exit(0)


def _no_room(error: Exception) -> bool:
    """Whether the disk is full, as the system or SQLite says it."""
    return getattr(error, "errno", None) in NO_ROOM or getattr(error, "sqlite_errorname", None) == "SQLITE_FULL"
