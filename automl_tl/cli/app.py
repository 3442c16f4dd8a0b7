"""``tl``: the command groups, and the one place where errors become a message and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import automl_tl
from automl_tl.cli import auto, data, installation, model, plugins, registry_sharing, server
from automl_tl.cli.render import log_on_stderr, print_error, result, set_verbosity
from automl_tl.cli.review import review
from automl_tl.cli.streams import standard_streams
from automl_tl.errors import AutomlTlError, ResourceError
from automl_tl.runtime.child_processes import SAFE_PATH
from automl_tl.runtime.resources import explain
from automl_tl_registry import RegistryError

_log = logging.getLogger(__name__)

EXIT_CODES = """Exit codes: 0 success · 2 usage · 3 data · 4 plan · 5 plugin or weights · 6 not in the registry ·
7 conflict · 8 gate failed · 9 damaged or inconsistent model · 10 storage · 11 training ·
130 interrupted · 141 output closed by its reader."""

app = typer.Typer(
    name="tl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="AutoML for image classification by transfer learning, with a local model registry.",
    epilog=EXIT_CODES,
)
app.add_typer(auto.app, name="auto")
app.add_typer(data.app, name="data")
app.add_typer(registry_sharing.app, name="registry")
app.add_typer(plugins.app, name="plugins")
app.add_typer(plugins.backbones_app, name="backbones")
app.add_typer(installation.cache_app, name="cache")
app.command(
    "bench", epilog="Example: tl bench ./images --backbone lite/efficientnet_lite0 --strategy linear_probe --strategy tail"
)(auto.bench)
app.command("predict", epilog="Example: tl predict flowers@production ./photos --max-error 5%")(model.predict)
app.command("evaluate", epilog="Example: tl evaluate flowers ./more-flowers")(model.evaluate)
app.command("explain", epilog="Example: tl explain flowers photo.jpg --images ./flowers")(model.explain)
app.command("export", epilog="Example: tl export flowers@production --format onnx --images ./flowers")(model.export)
app.command("report", epilog="Example: tl report flowers@3 --images ./flowers")(model.report)
app.command("serve", epilog="Example: tl serve flowers@production")(server.serve)
app.command("review", epilog="Example: tl review ./images --model flowers@production")(review)
app.command("doctor", epilog="Example: tl doctor")(installation.doctor)


def _disable_plugins(is_given: bool) -> None:
    if is_given:
        from automl_tl.plugin_host.discovery import ALL_PLUGINS, disable

        disable(ALL_PLUGINS)


def _be_quiet(is_given: bool) -> None:
    if is_given:
        warnings.simplefilter("ignore")
        set_verbosity(logging.ERROR)


def _be_verbose(is_given: bool) -> None:
    if is_given:
        set_verbosity(logging.DEBUG)
        _log.debug("automl-tl %s, Python %s, arguments %s", automl_tl.__version__, sys.version.split()[0], sys.argv[1:])


def _show_version(is_given: bool) -> None:
    if is_given:
        result.print(f"automl-tl {automl_tl.__version__}")
        raise typer.Exit


@app.callback()
def options(  # each option is handled by its callback, before or after the name of the command
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True, expose_value=False),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Show no progress and no warnings, only errors.", callback=_be_quiet, expose_value=False
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Show debug messages and tracebacks too.", callback=_be_verbose, expose_value=False
        ),
    ] = False,
    no_plugins: Annotated[
        bool,
        typer.Option("--no-plugins", help="Disable all third-party plugins.", callback=_disable_plugins, expose_value=False),
    ] = False,
) -> None:
    """Handle the options that every command has."""


def command() -> Any:  # noqa: ANN401 - Typer's own click
    """Return ``tl`` with its global options added to each command, so that they may also stand after its name."""
    tl: Any = typer.main.get_command(app)
    shared = [option for option in tl.params if option.name in {"quiet", "verbose", "no_plugins"}]
    unvisited = list(tl.commands.values())
    for added_to in unvisited:
        added_to.params.extend(shared)
        unvisited.extend(getattr(added_to, "commands", {}).values())
    return tl


def main() -> NoReturn:
    """Run ``tl``; known errors become one line on stderr and an exit code, anything else keeps its traceback."""
    # Idle OpenMP threads sleep instead of spinning: next to other jobs, a fit took half the time (decision 20).
    # Read when torch is imported, in child processes as well.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # operations that Apple GPUs lack run on the CPU
    os.environ.setdefault(SAFE_PATH, "1")  # for processes that libraries start; ours have it anyway
    warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged metadata of images; what matters is a remark or an error row
    with standard_streams(), log_on_stderr():
        _run()


def _run() -> NoReturn:
    """Run the command and end the process with its exit code."""
    try:
        _check_working_directory()
        command()()
    except (AutomlTlError, RegistryError) as error:
        _log.debug("traceback of the error below", exc_info=True)
        print_error(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        explained = explain(error) or _in_one_line(error)
        if explained is None:
            raise
        _log.debug("traceback of the error below", exc_info=True)
        print_error(str(explained))
        sys.exit(explained.exit_code)
    sys.exit(0)


def _check_working_directory() -> None:
    """Raise ``ResourceError`` if the working directory was deleted, in which MKL, for one, cannot start."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise ResourceError("The working directory no longer exists. Change to a folder that does, e.g. `cd`.") from error


def _in_one_line(error: Exception) -> ResourceError | None:
    """Return any other error of the operating system, such as a missing permission; ``None`` for a bug."""
    if not isinstance(error, OSError) or error.strerror is None:
        return None
    place = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) and error.filename else ""
    return ResourceError(f"{error.strerror}{place}. Check the path and its permissions, or choose another one.")
