"""``tl plugins``: who offers what."""

from __future__ import annotations

import typer

from automl_tl.catalog import discover
from automl_tl.cli.options import AsJson
from automl_tl.cli.render import table
from automl_tl.cli.telling import print_json, result

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Installed backbones and strategies.")


@app.command("list")
def list_plugins(as_json: AsJson = False) -> None:
    """List every installed plugin; one that is left out says why."""
    catalog = discover()
    counts: dict[str, int] = {}
    for backbone in catalog.backbones.values():
        counts[backbone.offer.name] = counts.get(backbone.offer.name, 0) + 1
    if as_json:
        print_json([{**offer.model_dump(), "num_backbones": counts.get(offer.name, 0)} for offer in catalog.offers])
        return
    rows = (
        (
            offer.kind,
            offer.name,
            f"{offer.distribution} {offer.version}",
            f"left out: {offer.problem}"
            if offer.problem
            else f"{counts.get(offer.name, 0)} backbones"
            if offer.kind == "backbones"
            else catalog.strategies[offer.name].strategy.summary,
        )
        for offer in catalog.offers
    )
    result.print(table("kind", "name", "from", "offers", rows=rows))
