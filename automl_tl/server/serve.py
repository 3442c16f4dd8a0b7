"""``tl serve``: load and prove a version, listen, answer until Ctrl-C or SIGTERM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from automl_tl import data
from automl_tl.data.decode import quiet_pillow
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.server.batcher import Batcher
from automl_tl.server.deployment import Deployment
from automl_tl.server.endpoints import HEALTH_PATHS, Endpoints
from automl_tl.server.inbox import Inbox
from automl_tl.server.listener import Stop, listen, run, url_of
from automl_tl.server.security import Guard
from automl_tl.server.served_model import ServedModel, ServingOptions
from automl_tl.server.telemetry import Metrics, Telemetry, log_to_stderr
from automl_tl.values import Value
from automl_tl.workflows.model import open_registry


@dataclass(frozen=True)
class Access:
    """Where the server listens, and who may use it."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    allow_hosts: Sequence[str] = ()


class Serving(Value):
    """A server that is ready."""

    url: str
    model: str
    alias: str | None
    engine: str


def serve(
    model: str,
    *,
    access: Access = Access(),
    options: ServingOptions = ServingOptions(),  # noqa: B008 - frozen
    collect: Path | None = None,
    access_log: bool = True,
    on_ready: Callable[[Serving, Stop], object] = lambda serving, stop: None,
    progress: Progress = QUIET,
) -> None:
    """Answer HTTP requests with a registered model; return after Ctrl-C or SIGTERM.

    Args:
        model: ``name`` (the latest version now), ``name@3``, or ``name@production``, which is followed.
        access: where to listen, and for whom.
        options: how predictions are withheld, and where versions are.
        collect: folder for corrections; by default none are accepted.
        access_log: whether to log every request.
        on_ready: called when requests are answered, with a function that stops the server.
        progress: receives warnings while a version is loaded.

    Raises:
        DataError: there are no training images where they should be.
        RegistryError: no such version, or a damaged one.
        ModelError: it cannot be used, or does not reproduce its reference predictions.
        ResourceError: the address is in use.
    """
    listening = listen(access.host, access.port)
    with listening, quiet_pillow():
        if options.images:  # a wrong path ends the command, rather than the first explanation
            data.open_source(options.images, classes_are_folders=True)
        deployment = Deployment(
            model, open_registry(options.registry), partial(ServedModel.open, options=options, progress=progress)
        )
        metrics = Metrics()
        batcher = Batcher(metrics.batches.observe)
        endpoints = Endpoints(deployment, batcher, metrics, inbox=Inbox(collect) if collect else None)
        guarded = Guard(
            endpoints.app(),
            host=access.host,
            token=access.token,
            allow_hosts=access.allow_hosts,
            open_paths=HEALTH_PATHS,
        )
        log_to_stderr(access=access_log)
        batcher.start()
        deployment.start()
        try:
            current = deployment.current
            serving = Serving(
                url=url_of(listening), model=current.ref, alias=deployment.alias, engine=current.predictor.engine_name
            )
            run(Telemetry(guarded, metrics), listening, on_ready=partial(on_ready, serving))
        finally:
            deployment.stop()
            batcher.stop()
            endpoints.close()
