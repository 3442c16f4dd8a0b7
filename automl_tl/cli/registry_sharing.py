"""``tl registry``: push, pull and sync models through a shared registry or another hub. The scheme of the URL says which."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import automl_tl
from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.registry import Name
from automl_tl.cli.registry_maintenance import PublicKey, app
from automl_tl.cli.render import ConsoleProgress, plain, print_json, result

if TYPE_CHECKING:
    from automl_tl_registry.values import Transfer

__all__ = ["app"]

Url = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="Shared registry: s3://BUCKET/PATH, gs://, az://, file:///PATH, a folder; oci://HOST/REPOSITORY:TAG; or hf://USER/REPOSITORY.",
        show_default=False,
    ),
]


Key = Annotated[
    Path | None,
    typer.Option(
        "--key", help="Sign versions that are not signed yet with this private key (PEM).", metavar="FILE", show_default=False
    ),
]


@app.command(epilog="Example: tl registry push flowers s3://team/models")
def push(
    model: Model,
    url: Url,
    repair: Annotated[bool, typer.Option("--repair", help="Upload every file again, to replace damaged ones.")] = False,
    key: Key = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Upload a version, or with a bare NAME the whole model with its tags, aliases and history, to a shared registry.

    To hf://USER/REPOSITORY goes the folder of `tl export --format hf`.
    """
    if url.startswith("hf://"):
        from automl_tl.workflows.hub import push_to_hub

        address = push_to_hub(model, url, registry=registry, progress=ConsoleProgress())
        print_json({"url": address}) if as_json else result.print(plain(f"pushed {model} to {address}"), soft_wrap=True)
        return
    transfer = automl_tl.registry(registry).push(model, url, repair=repair, key=key)
    print_json(transfer) if as_json else _show(transfer, "pushed", "to")


@app.command(epilog="Example: tl registry pull flowers@production s3://team/models")
def pull(model: Model, url: Url, public_key: PublicKey = None, registry: RegistryDir = None, as_json: AsJson = False) -> None:
    """Download a version, or with a bare NAME the whole model; every digest is checked before anything is visible."""
    transfer = automl_tl.registry(registry).pull(model, url, public_key=public_key)
    print_json(transfer) if as_json else _show(transfer, "pulled", "from")


@app.command(epilog="Example: tl registry sync flowers s3://team/models")
def sync(name: Name, url: Url, registry: RegistryDir = None, as_json: AsJson = False) -> None:
    """Pull what is missing here, then push what is missing in the shared registry."""
    pulled, pushed = automl_tl.registry(registry).sync(name, url)
    if as_json:
        print_json({"pulled": pulled.model_dump(mode="json"), "pushed": pushed.model_dump(mode="json")})
        return
    _show(pulled, "pulled", "from")
    _show(pushed, "pushed", "to")


def _show(transfer: Transfer, verb: str, preposition: str) -> None:
    """Print what a transfer moved, and its notes."""
    versions = ", ".join(transfer.versions) or f"no version of {transfer.name}"
    present = f" ({transfer.num_present} there already)" if transfer.num_present else ""
    files = f"{transfer.num_files} file{'s' * (transfer.num_files != 1)}, {transfer.num_bytes / 2**20:.1f} MiB"
    events = f"{transfer.num_events} event{'s' * (transfer.num_events != 1)}"
    result.print(plain(f"{verb} {versions}{present} {preposition} {transfer.url}: {files}, {events}"), soft_wrap=True)
    for note in transfer.notes:
        result.print(plain(note), soft_wrap=True)
