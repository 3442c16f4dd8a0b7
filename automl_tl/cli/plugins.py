"""``tl plugins``: list, check and create backbone and strategy plugins."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import automl_tl
from automl_tl.cli.options import AsJson, folder_to_write
from automl_tl.cli.render import ConsoleProgress, print_json, result, table
from automl_tl.errors import PluginError
from automl_tl.runtime.formatting import percent

if TYPE_CHECKING:
    from automl_tl.plugin_host import Catalog, LoadedBackbone, PluginEntry
    from automl_tl.testing import CheckResult

app = typer.Typer(no_args_is_help=True, help="List, check and create backbone and strategy plugins.")
backbones_app = typer.Typer(no_args_is_help=True, help="Download pretrained weights.")

WEIGHTS = {"package": "installed", "cached": "cached", "file": "local file", "download": "to download", "none": "none"}
MARKS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}


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
    result.print(table("kind", "name", "distribution", "provides", rows=rows))


def _describe(plugin: PluginEntry, catalog: Catalog, num_backbones: int) -> str:
    if plugin.disabled:
        return "disabled by TL_DISABLE_PLUGINS or --no-plugins"
    if plugin.needs:
        return plugin.needs
    if plugin.problem:
        return f"skipped: {plugin.problem} ({plugin.entry_point})"
    if plugin.kind == "strategy":
        provided = catalog.strategies[plugin.name].strategy.summary
    else:
        provided = f"{num_backbones} backbones" if plugin.kind == "backbones" else f"runs jobs for `--on {plugin.name}`"
    named = [one.card for one in catalog.backbones.values() if plugin.kind == "backbones" and one.plugin.name == plugin.name]
    if recommended := [card for card in named if card.recommended]:
        num_local = sum(card.is_local for card in recommended)
        provided += f", {len(recommended)} of them recommended ({num_local} on this machine; `--download`)"
    return "; ".join((provided, *plugin.notes))


@app.command("backbones", epilog="Example: tl plugins backbones resnet50 --json")
def list_backbones(
    substring: Annotated[
        str | None, typer.Argument(help="Filter by substring of the name, e.g. lite/ or resnet.", show_default=False)
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Only backbones whose weights are on this machine.")] = False,
    recommended: Annotated[bool, typer.Option("--recommended", help="Only the few that are worth a download.")] = False,
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
        if (substring or "") in name
        and (not local or backbone.card.is_local)
        and (not recommended or backbone.card.recommended)
    ]
    if as_json:
        print_json([{**one.card.model_dump(mode="json"), "distribution": one.plugin.distribution} for one in listed])
    else:
        result.print(table("backbone", "license", "parameters", "ImageNet top-1", "weights", rows=map(_card_row, listed)))
    progress.info(f"{len(listed)} of {len(catalog.backbones)} backbones")


@backbones_app.command(epilog="Example: tl backbones pull timm/convnext_nano.in12k_ft_in1k")
def pull(
    backbones: Annotated[list[str], typer.Argument(metavar="NAME...", help="Backbones to download.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Download the weights of backbones, so that later fits consider them without a network."""
    pulled = automl_tl.pull(*backbones, progress=ConsoleProgress())
    if as_json:
        print_json(pulled)
        return
    rows = ((one.backbone, one.license or "not stated", one.repository or "", (one.sha256 or "")[:12]) for one in pulled)
    result.print(table("backbone", "license", "repository", "sha256", rows=rows))


@backbones_app.callback()
def _group() -> None:
    """Keep ``pull`` a subcommand, although it is the only one."""


def _card_row(backbone: LoadedBackbone) -> tuple[str, str, str, str, str]:
    card = backbone.card
    parameters = "-" if card.num_parameters is None else f"{card.num_parameters / 1e6:.1f} M"
    size = f", {card.weights_mib:.0f} MiB" if card.weights_mib is not None and card.weights != "none" else ""
    return card.name, card.license or "not stated", parameters, percent(card.imagenet_top1), WEIGHTS[card.weights] + size


@app.command(epilog="Example: tl plugins check my-package")
def check(
    plugin: Annotated[
        list[str], typer.Argument(help="Distributions, strategies, PROVIDER or PROVIDER/MODEL.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Check that installed plugins conform to the plugin contract. Exit code 5 if a check fails."""
    from automl_tl.testing import find_plugins, run_checks

    reports = []
    for under_test in [match for name in plugin for match in find_plugins(name)]:
        if not as_json:
            result.print(f"[bold]{under_test}[/]")
        results = run_checks(under_test, (lambda _: None) if as_json else _print_check)
        counts: Counter[str] = Counter(check_result.outcome for check_result in results)
        if not as_json:
            result.print(", ".join(f"{counts[outcome]} {outcome}" for outcome in MARKS if counts[outcome]))
        checks = [check_result.model_dump() for check_result in results]
        reports.append({"plugin": str(under_test), "passed": not counts["failed"], "checks": checks})
    if as_json:
        print_json(reports)
    if not all(report["passed"] for report in reports):
        raise typer.Exit(PluginError.exit_code)


def _print_check(check_result: CheckResult) -> None:
    reason = f": {check_result.reason}" if check_result.reason else ""
    result.print(f"  {MARKS[check_result.outcome]:<8}{check_result.check}{reason}", markup=False, soft_wrap=True)


@app.command(epilog="Example: tl plugins new strategy careful --into ~/src")
def new(
    kind: Annotated[Literal["strategy", "backbone"], typer.Argument(help="Kind of plugin.", show_default=False)],
    name: Annotated[str, typer.Argument(help="Plugin name: lower-case letters, digits and underscores.", show_default=False)],
    into: Annotated[Path, typer.Option(help="Parent folder of the new package.", callback=folder_to_write)] = Path(),
    as_json: AsJson = False,
) -> None:
    """Create an installable plugin package with tests against the plugin contract."""
    from automl_tl.plugin_host.scaffold import write_package

    folder, files = write_package(kind, name, into)
    if as_json:
        print_json({"folder": str(folder), "files": [file.relative_to(folder).as_posix() for file in files]})
        return
    for file in files:
        result.print(f"  {file}", markup=False, soft_wrap=True)
    result.print(f"Next: pip install --editable {folder}, then tl plugins check {name}", markup=False, soft_wrap=True)
