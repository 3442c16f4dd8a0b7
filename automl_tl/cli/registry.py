"""``tl registry``: what is there, what is live."""

from __future__ import annotations

from typing import Annotated

import typer

from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.render import percent, percent_range, table
from automl_tl.cli.telling import print_json, result
from automl_tl.home import registry_dir
from automl_tl_registry import ModelVersion, Registry

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Versions of models: list, show, promote.")


@app.command("list", epilog="Example: tl registry list --last 10")
def list_versions(
    name: Annotated[str | None, typer.Argument(help="Only this model.", show_default=False)] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only so many, newest first.", show_default=False)] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """List versions, newest first."""
    versions = Registry(registry or registry_dir()).versions(name, last=last)
    if as_json:
        print_json([_row(version) for version in versions])
        return
    rows = (
        (
            version.ref,
            ", ".join(version.aliases),
            percent(version.facts.metrics.accuracy),
            percent_range(version.facts.metrics.interval),
            version.facts.backbone,
            version.facts.strategy,
            version.created_at.astimezone().strftime("%Y-%m-%d %H:%M"),
        )
        for version in versions
    )
    result.print(table("model", "aliases", "test accuracy", "95 %", "backbone", "strategy", "created", rows=rows))


@app.command(epilog="Example: tl registry show flowers@production")
def show(model: Model, registry: RegistryDir = None, as_json: AsJson = False) -> None:
    """Show everything that is known about a version."""
    version = Registry(registry or registry_dir()).resolve(model)
    if as_json:
        print_json(version)
        return
    facts = version.facts
    lines = {
        "model": version.ref,
        "aliases": ", ".join(version.aliases) or "-",
        "created": f"{version.created_at.astimezone():%Y-%m-%d %H:%M} by {version.actor}",
        "backbone": facts.backbone,
        "strategy": facts.strategy,
        "classes": ", ".join(facts.classes),
        "test": f"{percent(facts.metrics.accuracy)} ({percent_range(facts.metrics.interval)}, n={facts.metrics.num_images})",
        "size": f"{version.size_bytes / 2**20:.1f} MiB",
        "digest": facts.model_digest,
    }
    result.print(table("", "", rows=lines.items()))


def _row(version: ModelVersion) -> dict[str, object]:
    metrics = version.facts.metrics
    return {
        "name": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "tags": list(version.tags),
        "created_at": version.created_at.isoformat(),
        "accuracy": metrics.accuracy,
        "interval": list(metrics.interval),
        "num_images": metrics.num_images,
        "backbone": version.facts.backbone,
        "strategy": version.facts.strategy,
        "size_bytes": version.size_bytes,
    }
