"""Benchmark: `tl auto fit` with every backbone, strategy and seed, each in its own process with an empty cache."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from itertools import product
from math import inf
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from automl_tl.contracts import Answer, Job
from automl_tl.executors.jobs import perform
from automl_tl.executors.opening import open_executor
from automl_tl.models.engines import best_device
from automl_tl.planning import shortlist
from automl_tl.plugin_host import discover
from automl_tl.reports import render_bench
from automl_tl.runtime.file_names import file_name
from automl_tl.runtime.formatting import metric_name, metric_text, printable
from automl_tl.runtime.paths import absolute
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import BenchCell, Constraints, FitOutcome, Metric
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
    metric: Metric | None = None,
    corrections: str | Path | None = None,
    classes_are_folders: bool = False,
    out: str | Path = "bench",
    on: str | None = None,
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
        metric: that models are chosen by and that sorts the rows; absent: accuracy.
        corrections: file of decisions about single images, as `tl review` writes it; applied by image digest.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.
        out: folder of the results; finished cells in it are not measured again.
        on: executor that runs the fits: ``"ray"``, ``"ray://HOST:PORT"``, or a name of the configuration file. Default: one
            fit after another on this machine.
        progress: receives progress, one line per cell.

    Raises:
        DataError: the images cannot be used.
        UnknownBackboneError, UnknownStrategyError: no installed plugin provides a name.
        ExecutorError: the executor cannot be used.
    """
    catalog = discover()
    constraints = make_constraints(
        None, {"backbone": backbone, "weights": weights, "head": head, "budget": budget, "group_by": group_by, "metric": metric}
    )
    cards, _ = shortlist(catalog, constraints)
    names = [catalog.strategy(name).name for name in names_of(strategy) or catalog.strategies]
    out = Path(out)
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
    command = ["auto", "fit", absolute(images), *(["--classes-are-folders"] if classes_are_folders else [])]
    command += ["--corrections", absolute(corrections)] if corrections else []
    combinations = [(card.name, name, seed) for name, card, seed in product(names, cards, range(seeds))]
    files = {each: folder / file_name(f"{each[0].replace('/', '_')}-{each[1]}-{each[2]}.json") for each in combinations}
    finished = {each: cell for each, file in files.items() if (cell := _read_cell(file)) is not None}
    jobs = [_job([*command, *settings], *each) for each in combinations if each not in finished]
    cells, name = list(finished.values()), printable(Path(absolute(images)).name)
    with progress.track("benchmark", len(combinations)) as advance, open_executor(on if jobs else None) as executor:
        advance(len(finished))
        for job, answer in executor.run(jobs, perform, lambda: False):
            cell = _cell(name, job, answer)
            if cell.error is None:
                files[cell.backbone, cell.strategy, cell.seed].write_text(cell.model_dump_json(indent=2), encoding="utf-8")
            summary = cell.error or f"{metric_name(cell.metric)} {metric_text(cell.metric, cell.value)}, {cell.seconds:.0f} s"
            progress.info(f"{cell.strategy} on {cell.backbone}, seed {cell.seed}: {summary}")
            cells.append(cell)
            advance(1)
    cells.sort(key=_rank)
    _write_results(cells, out)
    progress.info(f"page: {out / 'bench.html'}")
    return cells


def _rank(cell: BenchCell) -> tuple[float, float]:
    """Sort key: the best by the metric first, errors last, then the fastest."""
    if cell.metric == "log_loss":
        return inf if cell.value is None else cell.value, cell.seconds or 0
    return -(cell.value or -1), cell.seconds or 0


def _settings(constraints: Constraints) -> list[str]:
    """Return the options that all fits have in common."""
    weights, dims, budget_s = constraints.weights, constraints.hidden_dims, constraints.budget_s
    options = [] if weights is None else ["--weights", weights if weights == "none" else absolute(weights)]
    if dims is not None:
        options += ["--head", f"mlp:{','.join(map(str, dims))}" if dims else "linear"]
    options += ["--group-by", constraints.group_by] if constraints.group_by else []
    options += ["--metric", constraints.metric] if constraints.metric else []
    return options if budget_s is None else [*options, "--budget", f"{budget_s}s"]


def _settings_digest(settings: Sequence[str]) -> list[str]:
    """Return a short digest of the options, of weights by their content; none for the defaults."""
    contents = [Path(option).read_bytes() if Path(option).is_file() else option.encode() for option in settings]
    return [hashlib.sha256(b"\0".join(contents)).hexdigest()[:8]] if settings else []


def _job(command: Sequence[str], backbone: str, strategy: str, seed: int) -> Job:
    """One fit in a new process: peak memory is the fit's own, and a crash does not end the benchmark."""
    options = ["--json", "--backbone", backbone, "--strategy", strategy, "--seed", str(seed)]
    num_gpus = int(best_device().type == "cuda")
    return Job(
        task="command", arguments={"command": [*command, *options], "cell": [backbone, strategy, seed]}, num_gpus=num_gpus
    )


def _cell(images: str, job: Job, answer: Answer) -> BenchCell:
    backbone, strategy, seed = cast(list[Any], job.arguments["cell"])
    cell = BenchCell(images=images, backbone=backbone, strategy=strategy, seed=seed)
    if answer.error is not None:
        return cell.model_copy(update={"error": answer.error})
    try:
        outcome = FitOutcome.model_validate_json(str(answer.result["stdout"]))
    except ValidationError:
        lines = str(answer.result["stderr"]).strip().splitlines() or [f"exit code {answer.result['exit_code']}"]
        return cell.model_copy(update={"error": lines[-1].removeprefix("error: ")})
    metric = outcome.test.metric or "accuracy"
    value, interval = outcome.test.measured(metric)
    return cell.model_copy(
        update={
            "accuracy": outcome.test.accuracy,
            "interval": outcome.test.interval,
            "balanced_accuracy": outcome.test.balanced_accuracy,
            "metric": metric,
            "value": value,
            "value_interval": interval,
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
