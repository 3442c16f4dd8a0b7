"""Commands that serve pages and answers over HTTP: serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automl_tl.cli.options import AsJson, MaxError, Model, RegistryDir, RejectOod, folder_to_write
from automl_tl.cli.render import ConsoleProgress, plain, print_json, result

if TYPE_CHECKING:
    from automl_tl.server.listener import Stop
    from automl_tl.server.serve import Serving

SERVE_EXTRA = "automl-tl[serve]"


def check_server_packages() -> None:
    """End the command with a usage error if the packages of the extra are missing."""
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn", "h11", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise typer.BadParameter(f"this command needs {', '.join(missing)}: `pip install '{SERVE_EXTRA}'`")


def serve(
    model: Model,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than this machine's own only with --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="TL_TOKEN", help="Token that every client must send.", show_default=False, show_envvar=True),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Further host name of this server (repeatable), e.g. behind a proxy."),
    ] = None,
    max_error: MaxError = None,
    reject_ood: RejectOod = True,
    collect: Annotated[
        Path | None,
        typer.Option(help="Accept corrections and file their images in this folder, by class.", callback=folder_to_write),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="The training images, if they are not where they were at the fit: the live page shows the nearest of them.",
            show_default=False,
        ),
    ] = None,
    access_log: Annotated[
        bool, typer.Option("--access-log/--no-access-log", help="Log every request on stderr as a line of JSON.")
    ] = True,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Answer HTTP requests with MODEL and show a live page; an alias is followed when it moves. Ctrl-C stops.

    Answers huggingface_hub's InferenceClient, clients of the Open Inference Protocol, and browsers.
    """
    check_server_packages()
    from automl_tl.server.security import TOKEN, is_loopback
    from automl_tl.server.serve import Access, serve
    from automl_tl.server.served_model import ServingOptions

    if token is not None and not TOKEN.fullmatch(token):
        raise typer.BadParameter("the token must be visible ASCII characters without spaces")
    if token is None and not is_loopback(host):
        raise typer.BadParameter(f"anyone who can reach {host} could use the server; add --token TOKEN (or set TL_TOKEN)")

    def show(serving: Serving, _: Stop) -> None:
        if as_json:
            print_json(serving)
        else:
            follows = f", following {model}" if serving.alias else ""
            result.print(plain(f"serving {serving.model}{follows} at {serving.url} ({serving.engine}); Ctrl-C stops"))
            if token is not None:
                result.print(plain(f"in a browser: {serving.url}/?token=TOKEN"))
        result.file.flush()

    serve(
        model,
        access=Access(host, port, token, tuple(allow_host or ())),
        options=ServingOptions(max_error, reject_ood, registry, images),
        collect=collect,
        access_log=access_log,
        on_ready=show,
        progress=ConsoleProgress(),
    )
