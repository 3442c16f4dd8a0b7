"""``tl plugins``: list, check and create backbone and strategy plugins."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automl_tl.cli.options import AsJson, folder_to_write
from automl_tl.cli.render import ConsoleProgress, print_json, result, table
from automl_tl.errors import PluginError
from automl_tl.runtime.formatting import percent

if TYPE_CHECKING:
    from automl_tl.plugin_host import Catalog, LoadedBackbone, PluginEntry
    from automl_tl.testing import Battery

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="List, check and create backbone and strategy plugins.")

WEIGHTS = {"package": "installed", "cached": "cached", "file": "local file", "download": "to download", "none": "none"}
LOCAL = ("package", "cached", "file")
MARKS = {"passed": "ok", "failed": "FAILED", "waived": "waived", "not_applicable": "-", "not_run": "NOT RUN"}


class Kind(StrEnum):
    """Kind of plugin."""

    strategy = "strategy"
    backbone = "backbone"


@app.command("list", epilog="Example: tl plugins list --json")
def list_plugins(as_json: AsJson = False) -> None:
    """List installed plugins, with the reason for each skipped one. TL_DISABLE_PLUGINS=NAME,NAME disables plugins."""
    from automl_tl.plugin_host import discover
    from automl_tl.plugin_host.discovery import unknown_names

    catalog = discover()
    if unknown := unknown_names(catalog.installed):
        ConsoleProgress().warn(f"TL_DISABLE_PLUGINS names plugins that are not installed: {', '.join(unknown)}")
    counts = Counter(backbone.plugin.name for backbone in catalog.backbones.values())
    if as_json:
        print_json([{**plugin.model_dump(), "num_backbones": counts[plugin.name]} for plugin in catalog.plugins])
        return
    rows = (
        (plugin.kind, plugin.name, f"{plugin.distribution} {plugin.version}", _describe(plugin, catalog, counts[plugin.name]))
        for plugin in catalog.plugins
    )
    result.print(table("kind", "name", "distribution", "offers", rows=rows))


def _describe(plugin: PluginEntry, catalog: Catalog, num_backbones: int) -> str:
    if plugin.switched_off:
        return "disabled by TL_DISABLE_PLUGINS or --no-plugins"
    if plugin.problem:
        return f"skipped: {plugin.problem} ({plugin.entry_point})"
    offers = catalog.strategies[plugin.name].strategy.summary if plugin.kind == "strategy" else f"{num_backbones} backbones"
    return "; ".join((offers, *plugin.notes))


@app.command("backbones", epilog="Example: tl plugins backbones resnet50 --json")
def list_backbones(
    substring: Annotated[
        str | None, typer.Argument(help="Filter by substring of the name, e.g. lite/ or resnet.", show_default=False)
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Only backbones whose weights are on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """List available backbones with license, size, published accuracy and location of the weights."""
    from automl_tl.plugin_host import discover

    catalog, progress = discover(), ConsoleProgress()
    for problem in catalog.problems:
        progress.warn(problem)
    listed = [
        backbone
        for name, backbone in sorted(catalog.backbones.items())
        if (substring or "") in name and (not local or backbone.card.weights in LOCAL)
    ]
    if as_json:
        print_json([{**one.card.model_dump(mode="json"), "distribution": one.plugin.distribution} for one in listed])
    else:
        result.print(table("backbone", "license", "parameters", "ImageNet top-1", "weights", rows=map(_card_row, listed)))
    progress.info(f"{len(listed)} of {len(catalog.backbones)} backbones")


def _card_row(backbone: LoadedBackbone) -> tuple[str, str, str, str, str]:
    card = backbone.card
    parameters = "-" if card.num_parameters is None else f"{card.num_parameters / 1e6:.1f} M"
    size = f", {card.weights_mib:.0f} MiB" if card.weights_mib is not None and card.weights != "none" else ""
    return card.name, card.license or "not stated", parameters, percent(card.imagenet_top1), WEIGHTS[card.weights] + size


@app.command(epilog="Example: tl plugins check my-package --waive 'takes_other_sides=its grid is fixed'")
def check(
    plugin: Annotated[
        list[str], typer.Argument(help="Distributions, strategies, PROVIDER or PROVIDER/MODEL.", show_default=False)
    ],
    waive: Annotated[
        list[str] | None, typer.Option(metavar="CHECK=REASON", help="Skip a check, with a reason; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that installed plugins conform to the plugin contract. Exit code 5 if a check fails."""
    from automl_tl.testing import BACKBONE_CHECKS, STRATEGY_CHECKS, checks_of_entry, find_entries

    waivers = _waivers(waive or [], {each.__name__ for each in (*STRATEGY_CHECKS, *BACKBONE_CHECKS)})
    batteries = [
        checks_of_entry(entry, model=named if "/" in named else None, waivers=waivers)
        for named in plugin
        for entry in find_entries(named)
    ]
    for battery in () if as_json else batteries:
        _run_aloud(battery)
    reports = [battery.report() for battery in batteries]
    if as_json:
        print_json([{**r.model_dump(mode="json"), "num_ran": r.num_ran, "is_good": r.is_good} for r in reports])
    if not all(report.is_good for report in reports):
        raise typer.Exit(PluginError.exit_code)


def _run_aloud(battery: Battery) -> None:
    """Print each check as it finishes, then the summary."""
    result.print(f"[bold]{battery.title}[/]")
    for outcome in battery.outcomes():
        why = f": {outcome.why}" if outcome.why else ""
        result.print(f"  {MARKS[outcome.state]:<8}{outcome.check}{why}", markup=False, soft_wrap=True)
    result.print(battery.report().summary, markup=False, soft_wrap=True)


def _waivers(given: list[str], known: set[str]) -> dict[str, str]:
    waivers = {}
    for text in given:
        name, _, reason = text.partition("=")
        if name not in known or not reason.strip():
            raise typer.BadParameter(f"{text!r} is not CHECK=REASON with one of the checks: {', '.join(sorted(known))}")
        waivers[name] = reason.strip()
    return waivers


@app.command(epilog="Example: tl plugins new strategy careful --into ~/src")
def new(
    kind: Annotated[Kind, typer.Argument(help="Kind of plugin.", show_default=False)],
    name: Annotated[str, typer.Argument(help="Plugin name: lower-case letters, digits and underscores.", show_default=False)],
    into: Annotated[Path, typer.Option(help="Parent folder of the new package.", callback=folder_to_write)] = Path(),
    as_json: AsJson = False,
) -> None:
    """Create an installable plugin package with tests against the plugin contract."""
    from automl_tl.plugin_host.scaffold import write_package

    folder, files = write_package(kind.value, name, into)
    if as_json:
        print_json({"folder": str(folder), "files": [file.relative_to(folder).as_posix() for file in files]})
        return
    for file in files:
        result.print(f"  {file}", markup=False, soft_wrap=True)
    result.print(f"Next: pip install --editable {folder}, then tl plugins check {name}", markup=False, soft_wrap=True)
