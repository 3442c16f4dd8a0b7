"""One cell, measured in a process of its own: ``python -m automl_tl.workflows.bench_measuring QUESTION`` prints it as JSON."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from automl_tl.evaluation import evaluate
from automl_tl.models.predictor import Predictor
from automl_tl.planning import Lab, make_plan, make_profile
from automl_tl.plugin_host import discover
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.runtime.threads import peak_mib
from automl_tl.training import Fitted, Workspace, fit
from automl_tl.values import Constraints, Plan
from automl_tl.workflows.bench_cells import Cell, Question
from automl_tl.workflows.fit import read_images

__all__ = ["measure"]

NUM_LATENCIES = 15


def measure(question: Question) -> Cell:
    """Plan, fit and test ``question``, from an empty cache."""
    constraints = Constraints(
        backbones=(question.backbone,), strategies=(question.strategy,), options=question.options, seed=question.seed
    )
    catalog, found = discover(), read_images(question.images, seed=question.seed, progress=QUIET)
    with tempfile.TemporaryDirectory(prefix="tl-cell-") as place:
        folder = Path(place)
        (folder / "scratch").mkdir()
        workspace = Workspace(folder=folder / "scratch", cache_dir=folder, deadline=Deadline(), progress=QUIET)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        lab = Lab(found.images, found.index.classes, workspace, constraints)
        plan = make_plan(make_profile(found.parts, found.report), catalog, constraints, lab, races=False)
        fitted = fit(plan, catalog.backbone(plan.backbone), found.index.classes, found.images, workspace)
        seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        test = found.images["test"]
        probabilities = fitted.probabilities(test)
        evaluation = evaluate(test.labels, probabilities, found.index.classes)
        right = probabilities.argmax(axis=1) == test.labels
        by_content = np.argsort([record.digest for record in test.records])
        return Cell(
            images=question.images_name,
            backbone=question.backbone,
            strategy=question.strategy,
            seed=question.seed,
            accuracy=evaluation.accuracy,
            interval=evaluation.interval,
            num_test=len(test),
            right="".join("1" if right[position] else "0" for position in by_content),
            expected=plan.expected.accuracy,
            expected_interval=plan.expected.accuracy_interval,
            out_of_fold=fitted.result.validation_accuracy,
            seconds=round(seconds, 2),
            cpu_s=round(cpu_s, 2),
            predicted_s=_without_publishing_s(plan, workspace),
            latency_ms=_latency_ms(fitted, 1),
            latency_4_ms=_latency_ms(fitted, 4),
            memory_mib=peak_mib(),
            size_mib=round(sum(f.stat().st_size for f in (fitted.result.encoder_file, fitted.result.head_file)) / 2**20, 2),
        )


def _without_publishing_s(plan: Plan, workspace: Workspace) -> float | None:
    """What the plan said, for what a cell does: no model is published."""
    if plan.expected.seconds is None:
        return None
    return round(plan.seconds + plan.expected.seconds - workspace.publishing_s(plan.expected.size_mib or 0.0), 2)


def _latency_ms(fitted: Fitted, num_images: int) -> float:
    """Least time of a batch, in torch as it is."""
    predictor, side_px = Predictor(fitted.classifier), fitted.result.preprocessing.side_px
    pixels = np.full((num_images, side_px, side_px, 3), 128, dtype=np.uint8)
    laps = []
    for _ in range(NUM_LATENCIES):
        began_s = time.perf_counter()
        predictor.probabilities(pixels)
        laps.append(1000 * (time.perf_counter() - began_s))
    return round(min(laps), 2)


if __name__ == "__main__":
    print(measure(Question.model_validate_json(sys.argv[1])).model_dump_json())
