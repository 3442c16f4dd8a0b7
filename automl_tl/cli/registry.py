"""``tl registry``: list, promote and compare versions. Maintenance commands are in ``registry_maintenance``."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import automl_tl
from automl_tl.cli.options import AsJson, Model, RegistryDir, Remote
from automl_tl.cli.render import plain, print_json, result, table
from automl_tl.runtime.formatting import first_few, metric_name, metric_range, metric_text, percent, percent_range

if TYPE_CHECKING:
    from automl_tl_registry import AliasChange, ModelVersion, Registry
    from automl_tl_registry.comparison import Difference
    from automl_tl_registry.sharing import SharedRegistry

app = typer.Typer(no_args_is_help=True, help="List, promote, compare and maintain model versions.")

SortKey = Literal["created", "name", "accuracy", "latency", "size"]
Name = Annotated[str, typer.Argument(help="Model name.", show_default=False)]
Alias = Annotated[str, typer.Argument(help="Alias, e.g. production or staging.", show_default=False)]
Reason = Annotated[str | None, typer.Option(help="Reason, kept in the event log.", show_default=False)]
Expect = Annotated[
    int | None, typer.Option(min=1, help="Fail with exit code 7 unless the alias points to this version.", show_default=False)
]

MoveKey = Annotated[
    Path | None, typer.Option("--key", help="Sign the move with this private key (PEM).", metavar="FILE", show_default=False)
]


def open_registry(folder: Path | None, remote: str | None) -> Registry | SharedRegistry:
    """Open the user's registry, or the shared one at ``remote``."""
    opened = automl_tl.registry(folder)
    return opened if remote is None else opened.shared(remote)


@app.command("list", epilog="Example: tl registry list --last 10 --sort accuracy")
def list_versions(
    name: Annotated[str | None, typer.Argument(help="Only this model.", show_default=False)] = None,
    alias: Annotated[str | None, typer.Option(help="Only versions with this alias.", show_default=False)] = None,
    tag: Annotated[str | None, typer.Option(help="Only versions with this tag.", show_default=False)] = None,
    sort: Annotated[SortKey, typer.Option(help="Sort key, best or newest first.")] = "created",
    last: Annotated[int | None, typer.Option(min=1, help="Number of newest versions to show.", show_default=False)] = None,
    remote: Remote = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """List versions, newest first."""
    versions = open_registry(registry, remote).versions(name, alias=alias, tag=tag, sort=sort, last=last)
    if as_json:
        print_json([_row(version) for version in versions])
        return
    rows = (
        (
            version.ref,
            ", ".join(version.aliases),
            percent(version.facts.metrics.figure("balanced_accuracy")),
            percent(version.facts.metrics.accuracy),
            percent_range(version.facts.metrics.interval),
            _first_missed(version),
            version.facts.backbone,
            version.facts.strategy,
            f"{version.size_bytes / 2**20:.1f}",
            f"{version.created_at.astimezone():%Y-%m-%d %H:%M}",
        )
        for version in versions
    )
    columns = (
        "model",
        "aliases",
        "balanced accuracy",
        "test accuracy",
        "95% CI",
        "missed classes",
        "backbone",
        "strategy",
        "MiB",
        "created",
    )
    result.print(table(*columns, rows=rows))


@app.command(epilog="Example: tl registry show flowers@production")
def show(
    model: Model,
    card: Annotated[bool, typer.Option("--card", help="Print the model card (Markdown).")] = False,
    remote: Remote = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Show all facts about a version."""
    version = open_registry(registry, remote).resolve(model)
    if as_json:
        print_json(version)
    elif card:
        from automl_tl_registry.exchange import model_card

        result.print(model_card(version), markup=False, soft_wrap=True)
    else:
        result.print(table("", "", rows=_facts(version).items()))


@app.command(epilog="Example: tl registry promote flowers@3 production --reason 'new photographs'")
def promote(
    model: Model,
    alias: Alias,
    reason: Reason = None,
    expect: Expect = None,
    force: Annotated[bool, typer.Option("--force", help="Override failed gates; needs --reason and is recorded.")] = False,
    key: MoveKey = None,
    remote: Remote = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Point ALIAS to a version if it passes the gates (exit code 8 otherwise)."""
    promoted = open_registry(registry, remote)
    if expect is None:
        change = promoted.promote(model, alias, reason=reason, force=force, key=key)
    else:
        change = promoted.promote(model, alias, reason=reason, force=force, key=key, expect=expect)
    print_json(change) if as_json else _show_alias_change(change)


@app.command(epilog="Example: tl registry rollback flowers production --reason 'wasps are called bees'")
def rollback(
    name: Name,
    alias: Alias,
    reason: Reason = None,
    key: MoveKey = None,
    remote: Remote = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Undo the last change of ALIAS; repeat to go further back."""
    change = open_registry(registry, remote).rollback(name, alias, reason=reason, key=key)
    print_json(change) if as_json else _show_alias_change(change)


@app.command(epilog="Example: tl registry demote flowers staging")
def demote(
    name: Name,
    alias: Alias,
    reason: Reason = None,
    key: MoveKey = None,
    remote: Remote = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove ALIAS; the version stays."""
    change = open_registry(registry, remote).demote(name, alias, reason=reason, key=key)
    print_json(change) if as_json else _show_alias_change(change)


@app.command(epilog="Example: tl registry history flowers --at 2026-05-03")
def history(
    name: Annotated[str | None, typer.Argument(help="Only this model.", show_default=False)] = None,
    alias: Annotated[str | None, typer.Option(help="Only this alias.", show_default=False)] = None,
    at: Annotated[str | None, typer.Option(help="Only what was live on this day or at this time (ISO 8601).")] = None,
    remote: Remote = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Show which version was live when, who promoted it, and why."""
    tenures = open_registry(registry, remote).history(name, alias=alias, at=None if at is None else _moment(at))
    if as_json:
        print_json(tenures)
        return
    from automl_tl_registry import Tenure

    result.print(table(*Tenure.COLUMNS, rows=(tenure.cells for tenure in tenures)))


@app.command(epilog="Example: tl registry diff flowers@2 flowers@3")
def diff(
    before: Model,
    after: Annotated[str, typer.Argument(help="Version to compare with.", show_default=False)],
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare two versions: settings, data, metrics, and their predictions image by image."""
    difference = automl_tl.registry(registry).diff(before, after)
    print_json(difference) if as_json else _show_difference(difference)


@app.command(epilog="Example: tl registry tag flowers@3 --add reviewed")
def tag(
    model: Model,
    add: Annotated[list[str] | None, typer.Option(help="Tag to add (repeatable).")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="Tag to remove (repeatable).")] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Add or remove tags on a version."""
    version = automl_tl.registry(registry).tag(model, add=add or (), remove=remove or ())
    print_json(_row(version)) if as_json else result.print(f"{version.ref}: {', '.join(version.tags) or 'no tags'}")


@app.command(epilog="Example: cp $(tl registry path flowers@production head) .")
def path(
    model: Model,
    role: Annotated[str, typer.Argument(help="File role: encoder, head, predictions ...")] = "head",
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the path of a file of a version, after checking its digest. Do not modify the file."""
    file = automl_tl.registry(registry).path(model, role)
    print_json({"path": str(file)}) if as_json else result.print(str(file), markup=False, soft_wrap=True)


def _show_alias_change(change: AliasChange) -> None:
    """Print the gate results and where the alias points now."""
    if change.gates:
        rows = ((gate.gate, gate.verdict, gate.text) for gate in change.gates)
        result.print(table("gate", "verdict", "figures", rows=rows))
    was = "unset" if change.previous is None else f"{change.name}@{change.previous}"
    now = "unset" if change.version is None else f"{change.name}@{change.version}"
    how = "" if change.changed else " (unchanged)"
    result.print(f"{change.name}@{change.alias}: {was} -> [bold]{now}[/]{how}{' (forced)' if change.forced else ''}")
    for note in change.notes:
        result.print(plain(note))


def _show_difference(difference: Difference) -> None:
    """Print the changes between two versions; the images classified differently come last."""
    changes = [
        (kind, change.key, "-" if change.before is None else change.before, "-" if change.after is None else change.after)
        for kind, group in (
            ("settings", difference.settings),
            ("data", difference.data),
            ("metrics", difference.metrics),
        )
        for change in group
    ]
    result.print(table("", "what", difference.before, difference.after, rows=changes))
    for change, classes in (("new", difference.classes_added), ("removed", difference.classes_removed)):
        if classes:
            result.print(f"classes {change}: {plain(', '.join(classes))}")
    if difference.images is not None:
        added, removed = (sum(map(len, images.values())) for images in (difference.images.added, difference.images.removed))
        relabeled, moved = len(difference.images.relabeled), len(difference.images.moved)
        result.print(f"images: {added} added, {removed} removed, {relabeled} relabeled, {moved} moved to another split")
    if difference.corrected:
        _show_corrections(difference)
    if difference.comparison is not None:
        both = difference.comparison
        result.print(
            f"on the {both.num_images} shared test images, by the labels of {difference.after} "
            f"({both.num_relabeled} differ in {difference.before}): {both.gained} newly right, {both.lost} newly wrong, "
            f"difference {100 * both.difference:+.1f} pp "
            f"(95% CI {100 * both.interval[0]:+.1f} to {100 * both.interval[1]:+.1f}), McNemar p {both.p_value:.2g}"
        )
    rows = ((image.digest[:12], image.label, image.before, image.after, image.kind) for image in difference.changed)
    if difference.changed:
        result.print(table("image", "label", difference.before, difference.after, "", rows=rows))


def _show_corrections(difference: Difference) -> None:
    """Print what the corrections changed from one version to the other."""
    counts = Counter(image.kind for image in difference.corrected)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in ("corrected", "excluded", "undone") if counts[kind])
    result.print(f"labels changed by corrections: {kinds}")
    rows = ((image.path, image.before or "(not used)", image.after or "(not used)") for image in difference.corrected)
    result.print(table("image", f"label in {difference.before}", f"label in {difference.after}", rows=rows))


def _moment(text: str) -> datetime | date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a date or time; expected 2026-05-03 or 2026-05-03T14:00") from error
    return moment.astimezone() if moment.tzinfo is None else moment


def _facts(version: ModelVersion) -> dict[str, str]:
    facts = version.facts
    metrics = facts.metrics
    return {
        "model": version.ref,
        "aliases": ", ".join(version.aliases) or "-",
        "tags": ", ".join(version.tags) or "-",
        "created": f"{version.created_at.astimezone():%Y-%m-%d %H:%M} by {version.actor}",
        "backbone": facts.backbone,
        "strategy": facts.strategy,
        "classes": ", ".join(facts.classes),
        **_tested(version),
        "macro F1": percent(metrics.figure("macro_f1")),
        "latency": "-" if facts.latency_ms is None else f"{facts.latency_ms:.1f} ms",
        "size": f"{version.size_bytes / 2**20:.1f} MiB",
        "data": ", ".join(f"{key} {value}" for key, value in facts.data.items() if isinstance(value, str | bool)),
        "made with": ", ".join(f"{key} {value}" for key, value in facts.environment.items() if isinstance(value, str)),
        "lineage": ", ".join(f"{key} {value}" for key, value in facts.lineage.items()),
        "notes": " ".join(facts.notes.split()),
        "digest": facts.model_digest,
        **{f"blob {role}": f"{blob.digest[:12]}... {blob.size_bytes:,} bytes" for role, blob in version.blobs.items()},
    }


def _tested(version: ModelVersion) -> dict[str, str]:
    """Return the metrics on the test split, the headline first, and the classes that are missed."""
    metrics = version.facts.metrics
    accuracy = f"{percent(metrics.accuracy)} ({percent_range(metrics.interval)}, n={metrics.num_images})"
    rows = {"test accuracy": accuracy, "balanced accuracy": percent(metrics.figure("balanced_accuracy"))}
    name, value, interval = metrics.headline
    if name != "accuracy":
        title = metric_name(name)
        text = f"{metric_text(name, value)} ({metric_range(name, interval)})" if interval else metric_text(name, value)
        rows = {title: text} | {key: row for key, row in rows.items() if key != title}
    missed = first_few(metrics.texts("warnings"), "classes")
    return rows | ({"missed classes": "; ".join(missed)} if missed else {})


def _first_missed(version: ModelVersion) -> str:
    """Return a class that the version misses and how many more there are, ``-`` if there is none."""
    missed = version.facts.metrics.texts("warnings")
    return (missed[0] + (f" and {len(missed) - 1} more" if len(missed) > 1 else "")) if missed else "-"


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
        "balanced_accuracy": metrics.figure("balanced_accuracy"),
        "headline": next(iter(metrics.texts("headline")), "accuracy"),
        "warnings": list(metrics.texts("warnings")),
        "backbone": version.facts.backbone,
        "strategy": version.facts.strategy,
        "size_bytes": version.size_bytes,
    }
