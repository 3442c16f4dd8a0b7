"""``tl cache`` and ``tl doctor``: what is on this machine, and whether it works."""

from __future__ import annotations

from typing import Annotated

import typer

import automl_tl
from automl_tl.cli.options import AsJson, size_mib
from automl_tl.cli.render import plain, print_json, result, table

cache_app = typer.Typer(no_args_is_help=True, help="Inspect, limit and clear the cache; everything in it can be recomputed.")


@cache_app.command(epilog="Example: tl cache info")
def info(as_json: AsJson = False) -> None:
    """Show where the cache is, what is in it, and its limit."""
    from automl_tl.runtime.paths import cache_dir, cache_use, read_limit

    folder = cache_dir()
    uses, limit_mib = cache_use(folder), read_limit(folder)
    total_mib = sum(use.size_mib for use in uses)
    if as_json:
        kinds = [use._asdict() for use in uses]
        print_json({"folder": str(folder), "size_mib": round(total_mib, 3), "limit_mib": limit_mib, "kinds": kinds})
        return
    result.print(plain(f"{folder}: {total_mib:.1f} MiB, at most {limit_mib:.0f} MiB"), soft_wrap=True)
    result.print(table("kind", "entries", "MiB", rows=((use.kind, use.num_entries, f"{use.size_mib:.1f}") for use in uses)))


@cache_app.command(epilog="Example: tl cache limit 5GB")
def limit(
    size: Annotated[
        float, typer.Argument(parser=size_mib, metavar="SIZE", help="Maximum size, e.g. 500MB, 5GB.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Limit the cache to SIZE; the least recently used entries are removed, now and after each fit."""
    from automl_tl.runtime.paths import cache_dir, set_limit, trim_cache
    from automl_tl.runtime.resources import writing_to

    with writing_to(cache_dir()):
        set_limit(cache_dir(), size)
    removed_mib = trim_cache(cache_dir())
    if as_json:
        print_json({"limit_mib": size, "removed_mib": round(removed_mib, 3)})
    else:
        result.print(f"at most {size:.0f} MiB; {removed_mib:.1f} MiB removed")


@cache_app.command(epilog="Example: tl cache clear")
def clear(as_json: AsJson = False) -> None:
    """Remove everything in the cache. Models in the registry stay."""
    from automl_tl.runtime.paths import cache_dir, clear_cache

    removed_mib = clear_cache(cache_dir())
    print_json({"removed_mib": round(removed_mib, 3)}) if as_json else result.print(f"{removed_mib:.1f} MiB removed")


def doctor(as_json: AsJson = False) -> None:
    """Check the installation: packages, weights, devices, folders. Exit code 1 if a check fails."""
    checks = automl_tl.doctor()
    if as_json:
        print_json(checks)
    else:
        marks = {"ok": "ok", "missing": "-", "failed": "FAILED"}
        rows = ((marks[check.status], check.name, check.detail) for check in checks)
        result.print(table("", "check", "result", rows=rows))
    if any(check.status == "failed" for check in checks):
        raise typer.Exit(1)
