"""``tl``: the command groups, and the one place where errors become a message and an exit code."""

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
from automl_tl_registry.errors import StorageError

__all__ = ["app", "main"]

EXIT_CODES = """Exit codes: 0 success · 2 usage · 3 data · 4 plan · 5 plugin or weights · 6 not in the registry ·
7 conflict · 8 gate failed · 9 damaged or inconsistent model · 10 storage · 11 training · 130 interrupted."""

DISK_FULL: Final = {errno.ENOSPC, errno.EDQUOT}

app = typer.Typer(
    name="tl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="AutoML for image classification by transfer learning, with a local model registry.",
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
    no_plugins: Annotated[bool, typer.Option("--no-plugins", help="Disable all third-party plugins.")] = False,
) -> None:
    """Options of every command; they come before the command's name."""
    if no_plugins:
        from automl_tl.plugin_host.discovery import ALL_PLUGINS, switch_off

        switch_off(ALL_PLUGINS)


def main() -> NoReturn:
    """Run ``tl``; known errors become one line on stderr and an exit code, anything else keeps its traceback."""
    # Idle OpenMP threads sleep instead of spinning: next to other jobs, a fit took half the time (decision 20).
    # Read when torch is imported, in child processes as well.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except (AutomlTlError, RegistryError) as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if not _is_disk_full(error):
            raise
        target = getattr(error, "filename", None) or "the output, which is incomplete"
        complain(
            f"The disk is full while writing {target}. Free some space, or choose another path (TMPDIR for temporary files)."
        )
        sys.exit(StorageError.exit_code)
    sys.exit(0)


def _is_disk_full(error: Exception) -> bool:
    """Return whether the error means that the disk is full, as reported by the system or SQLite."""
    return getattr(error, "errno", None) in DISK_FULL or getattr(error, "sqlite_errorname", None) == "SQLITE_FULL"
