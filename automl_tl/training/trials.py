"""Trials as jobs: the first epochs of several candidates at once, on the machines of an executor.

A job returns a checkpoint, and the trial that runs here resumes from it, as after an interruption. So the result is the one of
this machine alone, and a job that fails costs nothing but its time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from pydantic import TypeAdapter
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from automl_tl.contracts import Answer, Job
from automl_tl.data.workers import source_of
from automl_tl.plugin_host import discover
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.paths import cache_dir, usable_cache, write_whole
from automl_tl.runtime.progress import QUIET
from automl_tl.training.images import LabeledImages
from automl_tl.training.loop import train
from automl_tl.training.run import TrainingTask, start_run
from automl_tl.training.workspace import Workspace
from automl_tl.values import ImageRecord, Plan

RECORDS: Final = TypeAdapter(tuple[ImageRecord, ...])


def train_ahead(tasks: Sequence[TrainingTask], epochs: Sequence[int]) -> None:
    """Train the first epochs of several tasks at once, if an executor reads their images and has room for two.

    A job takes one GPU if this machine computes on one, else as many cores as PyTorch uses here, which changes the last bits.

    Args:
        tasks: of the same images, in the same workspace.
        epochs: of each task.
    """
    images, workspace = tasks[0].images, tasks[0].workspace
    workers, deadline, num_threads = images["train"].workers, workspace.deadline, torch.get_num_threads()
    if workers is None or len(tasks) < 2 or any(task.plan.processes > 1 for task in tasks):
        return
    # 1) Room for two, or training here is as fast.
    slots, num_gpus = workers.executor.slots, int(workspace.device.type == "cuda")
    if (slots.num_gpus if num_gpus else slots.num_cpus // num_threads) < 2:
        return
    # 2) Jobs. All images are part of a run's digest, by which the checkpoint is found.
    splits = {
        split: [RECORDS.dump_python(each.records, mode="json"), each.labels.tolist(), each.groups.tolist()]
        for split, each in images.items()
    }
    jobs = [
        workers.job(
            "trial",
            num_cpus=1 if num_gpus else num_threads,
            num_gpus=num_gpus,
            plan=task.plan.model_dump(mode="json"),
            classes=list(task.classes),
            splits=splits,
            epochs=number,
            threads=num_threads,
            budget_s=deadline.budget_s,
            spent_s=deadline.spent_s,
        )
        for task, number in zip(tasks, epochs, strict=True)
    ]
    # 3) Their checkpoints, unless this machine has one, which may be further.
    folder = workspace.cache_dir / "runs"
    with workspace.progress.track("trials on the executor", len(jobs)) as advance:
        for job, answer in workers.executor.run(jobs, workers.perform, lambda: deadline.left_s <= 0):
            if answer.error is not None:
                strategy = Plan.model_validate(job.arguments["plan"]).strategy
                workspace.progress.warn(f"The trial of {strategy} failed on a worker: {answer.error} It runs on this machine.")
            elif not (file := folder / str(answer.result["file"])).exists():
                write_whole(file, answer.content)
            advance(1)


def train_trial(job: Job) -> Answer:
    """Train the first epochs of a plan, and return the checkpoint.

    Raises:
        TrainingError: the loss is not finite, or one image does not fit in memory.
    """
    arguments: dict[str, Any] = job.arguments
    plan, read = Plan.model_validate(arguments["plan"]), source_of(job).read
    images = {
        split: LabeledImages(RECORDS.validate_python(records), np.array(labels, np.int64), np.array(groups, np.int64), read)
        for split, (records, labels, groups) in arguments["splits"].items()
    }
    deadline = Deadline(arguments["budget_s"])
    deadline.started_s -= arguments["spent_s"]
    with TemporaryDirectory(prefix="tl-job-") as folder, _threads(arguments["threads"]):
        workspace = Workspace(Path(folder), usable_cache(cache_dir()), deadline, QUIET)
        task = TrainingTask(plan, discover().backbone(plan.backbone), tuple(arguments["classes"]), images, workspace)
        run, _, _ = start_run(task, images["train"], images["validation"], plan.recipe)
        train(replace(run, pause_after=arguments["epochs"]))
    assert run.checkpoints is not None
    content = run.checkpoints.file.read_bytes()
    run.checkpoints.remove()
    return Answer(result={"file": run.checkpoints.file.name}, content=content, digest=sha256(content).hexdigest())


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute on ``number`` threads; the process may have started with others."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with threadpool_limits(number):
            yield
    finally:
        torch.set_num_threads(before)
