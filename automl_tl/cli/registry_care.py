"""``tl registry``, the other half: verify, tidy up, move, repair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.registry import Name, Reason, app, open_registry
from automl_tl.cli.render import table
from automl_tl.cli.telling import print_json, result

__all__ = ["app"]

Version = Annotated[str, typer.Argument(help="NAME@3: a number, never an alias or the latest.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")]
DAMAGED = 9


@app.command(epilog="Example: tl registry verify --probe")
def verify(
    model: Annotated[str | None, typer.Argument(help="Only this version. Default: everything.", show_default=False)] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Predict the probe images again, in a new process each.")] = False,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Check every digest, every reference and the log; exit code 9 if something is wrong."""
    found = open_registry(registry).verify(model, probe=probe)
    if as_json:
        print_json(found)
    else:
        if found.problems:
            rows = ((problem.severity, problem.kind, problem.subject, problem.text) for problem in found.problems)
            result.print(table("", "kind", "what", "found", rows=rows))
        probed = f", {found.num_probed} probed" if probe else ""
        counts = f"{found.num_versions} versions{probed}, {found.num_blobs} blobs, {found.num_events} events"
        result.print(f"{'sound' if found.sound else 'DAMAGED'}: {counts}, {found.num_bytes / 2**20:.1f} MiB read")
    if not found.sound:
        raise typer.Exit(DAMAGED)


@app.command(epilog="Example: tl registry gc --dry-run")
def gc(dry_run: DryRun = False, registry: RegistryDir = None, as_json: AsJson = False) -> None:
    """Remove files that no version and no publication in progress needs."""
    collected = open_registry(registry).gc(dry_run=dry_run)
    if as_json:
        print_json(collected)
        return
    would = "would remove" if dry_run else "removed"
    result.print(f"{would} {len(collected.blobs)} files, {collected.freed_bytes / 2**20:.1f} MiB")


@app.command(epilog="Example: tl registry delete flowers@2 --reason 'wrong labels'")
def delete(version: Version, reason: Reason = None, registry: RegistryDir = None, as_json: AsJson = False) -> None:
    """Delete a version; refused (exit 7) while it is, or lately was, aliased. Its files go with the next gc."""
    deleted = open_registry(registry).delete(version, reason=reason)
    print_json(deleted) if as_json else result.print(f"deleted {deleted.ref}; `tl registry gc` frees its files")


@app.command(epilog="Example: tl registry prune flowers --keep-best 5 --keep-last 10 --dry-run")
def prune(
    name: Name,
    keep_best: Annotated[int, typer.Option(min=0, help="Versions with the best test accuracy.")] = 5,
    keep_last: Annotated[int, typer.Option(min=0, help="Newest versions.")] = 10,
    dry_run: DryRun = False,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Delete versions that are neither among the best, nor the last, nor (lately) aliased."""
    pruned = open_registry(registry).prune(name, keep_best=keep_best, keep_last=keep_last, dry_run=dry_run)
    if as_json:
        print_json(pruned)
        return
    would = "would delete" if dry_run else "deleted"
    result.print(f"{would} {len(pruned.deleted)}: {', '.join(pruned.deleted) or '-'}")
    result.print(table("kept", "because", rows=pruned.kept.items()))


@app.command(epilog="Example: tl registry export flowers@production flowers.tar")
def export(
    model: Model,
    target: Annotated[Path, typer.Argument(help="A new folder, or a .tar or .zip.", show_default=False)],
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Write a version, self-contained, to a folder or archive; the same version gives the same bytes."""
    written = open_registry(registry).export(model, target)
    print_json({"path": str(written)}) if as_json else result.print(f"wrote {written}", markup=False)


@app.command("import", epilog="Example: tl registry import flowers.tar")
def import_version(
    source: Annotated[Path, typer.Argument(help="What `tl registry export` wrote.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Another name for the model.", show_default=False)] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Publish an exported version here, unless it is here already; every digest is checked."""
    version = open_registry(registry).import_(source, name=name)
    print_json(version) if as_json else result.print(f"it is {version.ref} here")


@app.command(epilog="Example: tl registry rebuild")
def rebuild(registry: RegistryDir = None, as_json: AsJson = False) -> None:
    """Make the database anew from the files, when it is lost or damaged."""
    rebuilt = open_registry(registry).rebuild()
    if as_json:
        print_json(rebuilt)
        return
    result.print(f"{rebuilt.num_versions} versions, {rebuilt.num_aliases} aliases, {rebuilt.num_events} events")
    for problem in rebuilt.problems:
        result.print(problem, markup=False)
