"""Benchmark: fit every backbone with every strategy on one dataset, each in a process of its own.

``python -m automl_tl.workflows.bench QUESTION`` measures one cell and prints it as JSON.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from automl_tl.evaluation import evaluate
from automl_tl.models.engines import latency_ms
from automl_tl.models.predictor import Predictor
from automl_tl.planning import EvidenceCollector, make_plan, make_profile, shortlist
from automl_tl.plugin_host import discover
from automl_tl.reports.bench_page import ranked, write_page
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.threads import peak_mib
from automl_tl.training import Workspace, fit
from automl_tl.values import BenchCell, Constraints, Plan, Value
from automl_tl.workflows.dataset import load_dataset

__all__ = ["Question", "bench", "measure", "read_cell", "run_cells", "write_cell"]

RESULT_SUFFIXES = (".json", ".html", ".csv", ".draft")


class Question(Value):
    """One cell to measure: a dataset, a backbone, a strategy and a seed."""

    images: Path
    backbone: str
    strategy: str
    seed: int = Field(default=0, ge=0, description="random seed of the split, folds and training")
    options: dict[str, str | float | int | bool] = Field(default_factory=dict, description="options of the strategy")

    @property
    def images_name(self) -> str:
        """Name of the folder or file that holds the images."""
        return self.images.resolve().name

    @property
    def file_name(self) -> str:
        """File name of the result; it depends on the content of the images, not on their location."""
        text = self.model_copy(update={"images": Path(self.images_name)}).model_dump_json() + _listing(self.images.resolve())
        return f"{self.images_name}-{sha256(text.encode()).hexdigest()[:16]}.json"


def bench(
    images: Path,
    *,
    backbones: Sequence[str] = (),
    strategies: Sequence[str] = (),
    num_seeds: int = 1,
    out: Path = Path("bench"),
    progress: Progress = QUIET,
) -> list[BenchCell]:
    """Compare backbones and strategies on one dataset; write an HTML page, CSV and JSON, and return the cells, best first.

    Args:
        images: any source that ``fit`` reads.
        backbones: names; by default the few that a plan would consider.
        strategies: names; by default all that are installed.
        num_seeds: fits per combination, with seeds 0, 1, ...
        out: folder of the results; cells that are already there are not measured again.
        progress: receives progress, one line per cell.

    Raises:
        UnknownBackboneError, UnknownStrategyError: no installed plugin provides a name.
    """
    catalog = discover()
    cards, _ = shortlist(catalog, Constraints(backbones=tuple(backbones)))
    names = [catalog.strategy(name).name for name in strategies or catalog.strategies]
    questions = [
        Question(images=images, backbone=card.name, strategy=strategy, seed=seed)
        for strategy in names
        for card in cards
        for seed in range(num_seeds)
    ]
    cells = list(run_cells(questions, out / "cells", progress=progress))
    progress.info(f"page: {write_page(cells, out)}")
    return ranked(cells)


def measure_in_new_process(question: Question) -> BenchCell:
    """Measure ``question`` in a child process: peak memory is the cell's own, and a crash does not end the others."""
    command = [sys.executable, "-m", "automl_tl.workflows.bench", question.model_dump_json()]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return BenchCell.model_validate_json(completed.stdout)
    except ValidationError:
        reason = (completed.stderr.strip().splitlines() or [f"exit code {completed.returncode}"])[-1]
        return BenchCell(
            images=question.images_name,
            backbone=question.backbone,
            strategy=question.strategy,
            seed=question.seed,
            error=reason,
        )


def run_cells(
    questions: Sequence[Question],
    folder: Path,
    *,
    progress: Progress = QUIET,
    measure: Callable[[Question], BenchCell] = measure_in_new_process,
) -> Iterator[BenchCell]:
    """Yield the cell of each question.

    Args:
        questions: what to measure, in order.
        folder: where results are kept; a cell that failed is measured again next time.
        progress: receives progress, one line per new cell.
        measure: measures one cell.
    """
    with progress.track("benchmark", len(questions)) as advance:
        for question in questions:
            cell = read_cell(folder, question)
            if cell is None:
                cell = measure(question)
                if cell.error is None:
                    write_cell(folder, question, cell)
                summary = cell.error or f"{100 * (cell.accuracy or 0):.1f}%, {cell.seconds:.0f} s"
                combination = f"{question.strategy} on {question.backbone}, seed {question.seed}"
                progress.info(f"{question.images_name}: {combination}: {summary}")
            advance(1)
            yield cell


def measure(question: Question) -> BenchCell:
    """Plan, train and test one cell, starting from an empty cache."""
    constraints = Constraints(
        backbones=(question.backbone,), strategies=(question.strategy,), options=question.options, seed=question.seed
    )
    catalog, dataset = discover(), load_dataset(question.images, seed=question.seed)
    with tempfile.TemporaryDirectory(prefix="tl-cell-") as place:
        # 1) Plan and train, timed.
        folder = Path(place)
        (folder / "scratch").mkdir()
        workspace = Workspace(folder=folder / "scratch", cache_dir=folder, deadline=Deadline(), progress=QUIET)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        profile = make_profile(dataset.parts, dataset.report)
        evidence = EvidenceCollector(profile, dataset.images, dataset.index.classes, workspace, constraints)
        plan = make_plan(catalog, evidence, run_trials=False)
        fitted = fit(plan, catalog.backbone(plan.backbone), dataset.index.classes, dataset.images, workspace)
        seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        # 2) Test.
        test = dataset.images["test"]
        probabilities = fitted.probabilities(test)
        evaluation = evaluate(test.labels, probabilities, dataset.index.classes)
        correct = probabilities.argmax(axis=1) == test.labels
        by_digest = np.argsort([record.digest for record in test.records])
        # 3) Costs.
        predictor, side_px = Predictor(fitted.classifier), fitted.result.preprocessing.side_px
        return BenchCell(
            images=question.images_name,
            backbone=question.backbone,
            strategy=question.strategy,
            seed=question.seed,
            accuracy=evaluation.accuracy,
            interval=evaluation.interval,
            num_test=len(test),
            right="".join("1" if correct[position] else "0" for position in by_digest),
            expected=plan.expected.accuracy,
            expected_interval=plan.expected.accuracy_interval,
            out_of_fold=fitted.result.validation_accuracy,
            seconds=round(seconds, 2),
            cpu_s=round(cpu_s, 2),
            predicted_s=_predicted_s(plan, workspace),
            latency_ms=round(latency_ms(predictor.probabilities, side_px), 2),
            latency_4_ms=round(latency_ms(predictor.probabilities, side_px, num_images=4), 2),
            memory_mib=peak_mib(),
            size_mib=round(sum(f.stat().st_size for f in (fitted.result.encoder_file, fitted.result.head_file)) / 2**20, 2),
        )


def read_cell(folder: Path, question: Question) -> BenchCell | None:
    """Return the stored cell of ``question`` in ``folder``, or ``None`` if there is none or it is incomplete."""
    try:
        return BenchCell.model_validate_json((folder / question.file_name).read_bytes())
    except (OSError, ValidationError):
        return None


def write_cell(folder: Path, question: Question, cell: BenchCell) -> None:
    """Store ``cell`` in ``folder`` atomically: a draft, then a rename."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{question.file_name}.draft"
    draft.write_text(cell.model_dump_json(indent=1), encoding="utf-8")
    draft.replace(folder / question.file_name)


@cache
def _listing(images: Path) -> str:
    """Return names and sizes of the files, a quick fingerprint; results of a benchmark are left out."""
    files = [images] if images.is_file() else sorted(images.rglob("*"))
    listed = (file for file in files if file.is_file() and file.suffix not in RESULT_SUFFIXES)
    return ";".join(f"{file.relative_to(images)} {file.stat().st_size}" for file in listed)


def _predicted_s(plan: Plan, workspace: Workspace) -> float | None:
    """Return the seconds that the plan predicted for what a cell does; a cell publishes nothing."""
    if plan.expected.seconds is None:
        return None
    return round(plan.seconds + plan.expected.seconds - workspace.publishing_s(plan.expected.size_mib or 0.0), 2)


if __name__ == "__main__":
    print(measure(Question.model_validate_json(sys.argv[1])).model_dump_json())
