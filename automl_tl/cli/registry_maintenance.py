"""``tl registry``: verify, clean up, export, import and rebuild."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import automl_tl
from automl_tl.cli.options import AsJson, Model, RegistryDir, Remote
from automl_tl.cli.registry import Name, Reason, app, open_registry
from automl_tl.cli.render import plain, print_json, result, table

__all__ = ["app"]

Version = Annotated[str, typer.Argument(help="Version as NAME@3 (a number, not an alias).", show_default=False)]
Key = Annotated[
    Path,
    typer.Option(
        "--key", help="Elliptic-curve private key (PEM); TL_KEY_PASSWORD decrypts it.", metavar="FILE", show_default=False
    ),
]
PublicKey = Annotated[
    Path | None,
    typer.Option(
        "--public-key",
        help="Require a signature by this key (PEM); needs automl-tl[signing].",
        metavar="FILE",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")]
DAMAGED = 9


@app.command(epilog="Example: tl registry sign flowers@3 --key private.pem")
def sign(model: Model, key: Key, registry: RegistryDir = None, as_json: AsJson = False) -> None:
    """Sign a version with OpenSSF model signing; needs automl-tl[signing]."""
    signature = automl_tl.registry(registry).sign(model, key)
    if as_json:
        print_json(signature)
        return
    how = "signed" if signature.changed else "was already signed"
    result.print(f"{signature.ref} {how} with the key {signature.key[:16]}: {len(signature.files)} files")
    result.print(plain(signature.path), soft_wrap=True)


@app.command(epilog="Example: tl registry verify --predictions")
def verify(
    model: Annotated[str | None, typer.Argument(help="Only this version. Default: everything.", show_default=False)] = None,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Also reproduce the reference predictions, in a new process per version.")
    ] = False,
    public_key: PublicKey = None,
    remote: Remote = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Check every digest, every reference and the event log; exit code 9 if something is wrong."""
    verification = open_registry(registry, remote).verify(model, predictions=predictions, public_key=public_key)
    if as_json:
        print_json(verification)
    else:
        if verification.problems:
            rows = ((problem.severity, problem.kind, problem.subject, problem.text) for problem in verification.problems)
            result.print(table("", "kind", "what", "found", rows=rows))
        reproduced = f", {verification.num_predicted} predicted" if predictions else ""
        versions = f"{verification.num_versions} version{'s' * (verification.num_versions != 1)}"
        counts = f"{versions}{reproduced}, {verification.num_blobs} blobs"
        events = f"{verification.num_events} event{'s' * (verification.num_events != 1)}"
        counts += f", {events}, {verification.num_bytes / 2**20:.1f} MiB read"
        result.print(f"{'sound' if verification.sound else 'DAMAGED'}: {counts}")
    if not verification.sound:
        raise typer.Exit(DAMAGED)


@app.command(epilog="Example: tl registry gc --dry-run")
def gc(dry_run: DryRun = False, remote: Remote = None, registry: RegistryDir = None, as_json: AsJson = False) -> None:
    """Remove files that no version and no running publication needs; with --remote, not before a week has passed."""
    collected = open_registry(registry, remote).gc(dry_run=dry_run)
    if as_json:
        print_json(collected)
        return
    would = "would remove" if dry_run else "removed"
    result.print(f"{would} {len(collected.blobs)} files, {collected.freed_bytes / 2**20:.1f} MiB")


@app.command(epilog="Example: tl registry delete flowers@2 --reason 'wrong labels'")
def delete(
    version: Version, reason: Reason = None, remote: Remote = None, registry: RegistryDir = None, as_json: AsJson = False
) -> None:
    """Delete a version, unless it has or recently had an alias (exit code 7). `gc` then removes its files."""
    deleted = open_registry(registry, remote).delete(version, reason=reason)
    text = f"deleted {deleted.ref}; `tl registry gc` frees its files"
    if remote is not None:
        text = f"deleted {deleted.ref} from {remote}; in a week, `tl registry gc --remote {remote}` frees its files"
    print_json(deleted) if as_json else result.print(plain(text), soft_wrap=True)


@app.command(epilog="Example: tl registry prune flowers --keep-best 5 --keep-last 10 --dry-run")
def prune(
    name: Name,
    keep_best: Annotated[int, typer.Option(min=0, help="Number of versions with the best test accuracy to keep.")] = 5,
    keep_last: Annotated[int, typer.Option(min=0, help="Number of newest versions to keep.")] = 10,
    dry_run: DryRun = False,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Delete versions that are neither among the best, nor the newest, nor (recently) aliased."""
    pruned = automl_tl.registry(registry).prune(name, keep_best=keep_best, keep_last=keep_last, dry_run=dry_run)
    if as_json:
        print_json(pruned)
        return
    would = "would delete" if dry_run else "deleted"
    result.print(f"{would} {len(pruned.deleted)}: {', '.join(pruned.deleted) or '-'}")
    result.print(table("kept", "because", rows=pruned.kept.items()))


@app.command(epilog="Example: tl registry export flowers@production flowers.tar")
def export(
    model: Model,
    target: Annotated[Path, typer.Argument(help="New folder, or a .tar or .zip file.", show_default=False)],
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Export a version to a self-contained folder or archive, reproducibly byte for byte."""
    written = automl_tl.registry(registry).export(model, target)
    print_json({"path": str(written)}) if as_json else result.print(plain(f"wrote {written}"), soft_wrap=True)


@app.command("import", epilog="Example: tl registry import flowers.tar")
def import_version(
    source: Annotated[Path, typer.Argument(help="Folder or archive written by `tl registry export`.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Model name to use instead.", show_default=False)] = None,
    public_key: PublicKey = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Import an exported version, unless it is already here; every digest is checked."""
    version = automl_tl.registry(registry).import_(source, name=name, public_key=public_key)
    print_json(version) if as_json else result.print(f"imported as {version.ref}")


@app.command(epilog="Example: tl registry rebuild")
def rebuild(registry: RegistryDir = None, as_json: AsJson = False) -> None:
    """Rebuild a lost or damaged database from the files."""
    rebuilt = automl_tl.registry(registry).rebuild()
    if as_json:
        print_json(rebuilt)
        return
    result.print(f"{rebuilt.num_versions} versions, {rebuilt.num_aliases} aliases, {rebuilt.num_events} events")
    for problem in rebuilt.problems:
        result.print(problem, markup=False)
