"""Plan: what ``fit`` would do with a dataset, and why. Nothing is trained."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

from automl_tl.contracts import Slots
from automl_tl.errors import Interrupted
from automl_tl.executors.local import LocalExecutor
from automl_tl.executors.opening import open_executor
from automl_tl.models.engines import best_device
from automl_tl.planning import EvidenceCollector, make_plan, make_profile
from automl_tl.planning.cost import TIMING_S, seconds_on_slots
from automl_tl.plugin_host import discover
from automl_tl.runtime.budget import Deadline, OutOfTime
from automl_tl.runtime.paths import cache_dir, scratch_folder, usable_cache
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.resources import writing_to
from automl_tl.runtime.threads import num_cores
from automl_tl.training import TrainingTask, Workspace
from automl_tl.values import Constraints, Plan, SlotEstimate
from automl_tl.workflows.constraints import ConstraintOptions, make_constraints
from automl_tl.workflows.dataset import Dataset, load_dataset


def plan(
    images: str | Path,
    *,
    constraints: Constraints | None = None,
    corrections: str | Path | None = None,
    classes_are_folders: bool = False,
    on: str | None = None,
    progress: Progress = QUIET,
    deadline: Deadline | None = None,
    **options: Unpack[ConstraintOptions],
) -> Plan:
    """Return the plan that ``fit`` would start with.

    Args:
        images: any source that ``fit`` reads.
        constraints: limits and preferences; absent: the planner decides everything.
        corrections: file of decisions about single images, as `tl review` writes it; applied by image digest.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.
        on: executor that reads the images and extracts their features, as of ``fit``.
        progress: receives progress and warnings.
        deadline: started with the command, and gets the budget of the constraints; by default it starts now.
        options: constraints by the names of the command line, such as ``budget="5m"``; see ``ConstraintOptions``.

    Raises:
        DataError: the images cannot be used.
        PlanError: no candidate satisfies the constraints.
        ExecutorError: the executor cannot be used.
    """
    constraints = make_constraints(constraints, options)
    deadline = deadline or Deadline()
    deadline.budget_s = constraints.budget_s
    catalog = discover()
    with open_executor(on, deadline, progress) as executor:
        dataset = load_dataset(
            images,
            seed=constraints.seed,
            corrections=corrections,
            classes_are_folders=classes_are_folders,
            group_by=constraints.group_by,
            executor=executor,
            progress=progress,
            deadline=deadline,
        )
        for problem in catalog.problems:
            progress.warn(problem)
        with open_workspace(deadline, progress) as workspace:
            result = make_plan(catalog, evidence_collector(dataset, constraints, workspace), run_trials=False)
            if on is None or isinstance(executor, LocalExecutor) or not result.recipe.pretrained:
                return result
            task = TrainingTask(result, catalog.backbone(result.backbone), dataset.index.classes, dataset.images, workspace)
            return result.model_copy(update={"elsewhere": _estimate_on(on, executor.slots, task)})


def _estimate_on(on: str, slots: Slots, task: TrainingTask) -> SlotEstimate:
    """Predict time and price of the fit of ``task`` on the slots of an executor."""
    # 1) What is missing, and what the expected seconds of the plan hold for it.
    encoder, is_gpu = task.new_encoder(pretrained=True), best_device().type == "cuda"
    images, workspace = task.learning + task.images["test"], task.workspace
    num_missing = len(task.prefix(encoder).missing(images))
    speed = task.speed(encoder)
    serial_s = max((task.plan.expected.seconds or 0.0) - num_missing * speed.image_s, 0.0)
    # 2) The same work on the slots.
    num_slots = max(slots.num_gpus if is_gpu else slots.num_cpus, 1)
    seconds = seconds_on_slots(
        speed,
        num_missing,
        num_slots=num_slots,
        serial_s=serial_s,
        start_s=(workspace.deadline.startup_s or 0.0) + TIMING_S,
        num_cores_timed=None if is_gpu else num_cores(),
    )
    return SlotEstimate(
        on=on,
        num_slots=num_slots,
        num_images=num_missing,
        seconds=round(seconds, 1),
        slot_hours=round(num_slots * seconds / 3600, 4),
    )


def evidence_collector(dataset: Dataset, constraints: Constraints, workspace: Workspace) -> EvidenceCollector:
    """Return the collector of what the planner measures.

    Args:
        dataset: the images, their split and the data report.
        constraints: limits and preferences of the plan.
        workspace: caches, budget and progress of the command.
    """
    profile = make_profile(dataset.records, dataset.report)
    return EvidenceCollector(profile, dataset.images, dataset.index.classes, workspace, constraints)


@contextmanager
def open_workspace(deadline: Deadline, progress: Progress) -> Iterator[Workspace]:
    """Open a temporary workspace; it is deleted at the end.

    Args:
        deadline: the budget of the whole command.
        progress: receives progress and warnings.

    Raises:
        Interrupted: the user pressed Ctrl-C.
    """
    kept = "Nothing was published; computed features stay in the cache."
    if (wanted := os.environ.get("TMPDIR")) and Path(wanted).absolute() != Path(tempfile.gettempdir()):
        progress.warn(f"TMPDIR is {wanted}, where nothing can be written; temporary files go to {tempfile.gettempdir()}")
    with scratch_folder("tl-") as folder, writing_to(folder), interruptible(deadline, kept):
        yield Workspace(folder, usable_cache(cache_dir()), deadline, progress)


@contextmanager
def interruptible(deadline: Deadline, state: str) -> Iterator[None]:
    """Turn Ctrl-C into ``Interrupted``.

    Args:
        deadline: ends with Ctrl-C.
        state: a sentence that says what was kept.

    Raises:
        Interrupted: the user pressed Ctrl-C.
    """
    try:
        with deadline.interruptible():
            yield
    except OutOfTime as error:
        raise Interrupted(state) from error
