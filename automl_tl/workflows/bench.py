"""Benchmark: `tl auto fit` with every backbone, strategy and seed, each in its own process with an empty cache."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from automl_tl.planning import shortlist
from automl_tl.plugin_host import discover
from automl_tl.reports import render_bench
from automl_tl.runtime.child_processes import run_python
from automl_tl.runtime.file_names import file_name
from automl_tl.runtime.formatting import printable
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import BenchCell, Constraints, FitOutcome
from automl_tl.workflows.constraints import make_constraints, names_of
from automl_tl.workflows.dataset import load_dataset


def bench(
    images: str | Path,
    *,
    backbone: str | Sequence[str] = (),
    strategy: str | Sequence[str] = (),
    weights: str | Path | None = None,
    head: str | None = None,
    budget: str | float | None = None,
    seeds: int = 1,
    group_by: str | None = None,
    corrections: str | Path | None = None,
    classes_are_folders: bool = False,
    out: str | Path = "bench",
    progress: Progress = QUIET,
) -> list[BenchCell]:
    """Compare backbones and strategies on one dataset; write an HTML page and a CSV file, and return the cells, best first.

    Args:
        images: any source that ``fit`` reads.
        backbone: one or several names; by default the few that a plan would consider.
        strategy: one or several names; by default all that are installed.
        weights: file for the backbone, if there is one; ``"none"``: random weights.
        head: ``"linear"`` or ``"mlp:1024"``; by default chosen by the strategy.
        budget: wall-clock limit of each fit, such as ``"5m"``, or in seconds.
        seeds: fits per combination, with seeds 0, 1, ...
        group_by: images that stay in one split, as of ``fit``.
        corrections: file of decisions about single images, as `tl review` writes it; applied by image digest.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.
        out: folder of the results; finished cells in it are not measured again.
        progress: receives progress, one line per cell.

    Raises:
        DataError: the images cannot be used.
        UnknownBackboneError, UnknownStrategyError: no installed plugin provides a name.
    """
    catalog = discover()
    constraints = make_constraints(
        None, {"backbone": backbone, "weights": weights, "head": head, "budget": budget, "group_by": group_by}
    )
    cards, _ = shortlist(catalog, constraints)
    names = [catalog.strategy(name).name for name in names_of(strategy) or catalog.strategies]
    images, out = Path(images), Path(out)
    dataset = load_dataset(
        images,
        seed=0,
        corrections=corrections,
        classes_are_folders=classes_are_folders,
        group_by=group_by,
        progress=progress,
    )
    settings = _settings(constraints)
    folder = out / "cells" / "-".join([dataset.report.fingerprint[:16], *_settings_digest(settings)])
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [str(images), *(["--classes-are-folders"] if classes_are_folders else [])]
    arguments += ["--corrections", str(corrections)] if corrections else []
    cells = []
    combinations = list(product(names, cards, range(seeds)))
    with progress.track("benchmark", len(combinations)) as advance:
        for name, card, seed in combinations:
            file = folder / file_name(f"{card.name.replace('/', '_')}-{name}-{seed}.json")
            cell = _read_cell(file)
            if cell is None:
                cell = _measure([*arguments, *settings], card.name, name, seed)
                if cell.error is None:
                    file.write_text(cell.model_dump_json(indent=2), encoding="utf-8")
                summary = cell.error or f"accuracy {100 * (cell.accuracy or 0):.1f}%, {cell.seconds:.0f} s"
                progress.info(f"{name} on {card.name}, seed {seed}: {summary}")
            cells.append(cell)
            advance(1)
    cells.sort(key=lambda cell: (-(cell.accuracy or -1), cell.seconds or 0))
    _write_results(cells, out)
    progress.info(f"page: {out / 'bench.html'}")
    return cells


def _settings(constraints: Constraints) -> list[str]:
    """Return the options that all fits have in common."""
    weights, dims, budget_s = constraints.weights, constraints.hidden_dims, constraints.budget_s
    options = [] if weights is None else ["--weights", weights]
    if dims is not None:
        options += ["--head", f"mlp:{','.join(map(str, dims))}" if dims else "linear"]
    options += ["--group-by", constraints.group_by] if constraints.group_by else []
    return options if budget_s is None else [*options, "--budget", f"{budget_s}s"]


def _settings_digest(settings: Sequence[str]) -> list[str]:
    """Return a short digest of the options, of weights by their content; none for the defaults."""
    contents = [Path(option).read_bytes() if Path(option).is_file() else option.encode() for option in settings]
    return [hashlib.sha256(b"\0".join(contents)).hexdigest()[:8]] if settings else []


def _measure(images: Sequence[str], backbone: str, strategy: str, seed: int) -> BenchCell:
    """Run one fit in a new process: peak memory is the fit's own, and a crash does not end the benchmark."""
    command = ["-m", "automl_tl", "auto", "fit", *images, "--json"]
    command += ["--backbone", backbone, "--strategy", strategy, "--seed", str(seed)]
    with TemporaryDirectory(prefix="tl-bench-") as home:
        completed = run_python(command, environment={"TL_HOME": home})
    cell = BenchCell(images=printable(Path(images[0]).resolve().name), backbone=backbone, strategy=strategy, seed=seed)
    try:
        outcome = FitOutcome.model_validate_json(completed.stdout)
    except ValidationError:
        last_line = (completed.stderr.strip().splitlines() or [f"exit code {completed.returncode}"])[-1]
        return cell.model_copy(update={"error": last_line.removeprefix("error: ")})
    return cell.model_copy(
        update={
            "accuracy": outcome.test.accuracy,
            "interval": outcome.test.interval,
            "balanced_accuracy": outcome.test.balanced_accuracy,
            "num_test": outcome.test.num_images,
            "expected": outcome.plan.expected.accuracy,
            "expected_interval": outcome.plan.expected.accuracy_interval,
            "seconds": outcome.seconds,
            "latency_ms": outcome.measured.latency_ms,
            "memory_mib": outcome.measured.memory_mib,
            "size_mib": outcome.measured.size_mib,
        }
    )


def _read_cell(file: Path) -> BenchCell | None:
    """Return the cell in ``file``, or ``None`` if there is none or it is incomplete."""
    try:
        return BenchCell.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _write_results(cells: Sequence[BenchCell], out: Path) -> None:
    (out / "bench.html").write_text(render_bench(cells), encoding="utf-8")
    with (out / "bench.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, BenchCell.model_fields)
        writer.writeheader()
        writer.writerows(cell.model_dump(mode="json") for cell in cells)
