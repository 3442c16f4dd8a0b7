"""Plan: what ``fit`` would do with a dataset, and why. Nothing is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from automl_tl.errors import Interrupted
from automl_tl.planning import EvidenceCollector, make_plan, make_profile, read_plan
from automl_tl.plugin_host import Catalog, discover
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.paths import cache_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.training import Workspace
from automl_tl.values import Constraints, Plan
from automl_tl.workflows.dataset import load_dataset

__all__ = ["interruptible", "open_workspace", "plan", "read_plan", "warn_about_plugins"]


def plan(
    images: Path,
    *,
    constraints: Constraints | None = None,
    progress: Progress = QUIET,
    deadline: Deadline | None = None,
) -> Plan:
    """Return the plan that ``fit`` would start with.

    Args:
        images: any source that ``fit`` reads.
        constraints: limits and preferences; absent: the planner decides everything.
        progress: receives progress and warnings.
        deadline: the budget, already running; by default it starts now.

    Raises:
        DataError: the images cannot be used.
        PlanError: no candidate satisfies the constraints.
    """
    constraints = constraints or Constraints()
    catalog = discover()
    dataset = load_dataset(images, seed=constraints.seed, progress=progress)
    warn_about_plugins(catalog, progress)
    with open_workspace(deadline or Deadline(constraints.budget_s), progress) as workspace:
        profile = make_profile(dataset.parts, dataset.report)
        evidence = EvidenceCollector(profile, dataset.images, dataset.index.classes, workspace, constraints)
        return make_plan(catalog, evidence, run_trials=False)


def warn_about_plugins(catalog: Catalog, progress: Progress) -> None:
    """Report every plugin that could not be loaded.

    Args:
        catalog: the installed plugins.
        progress: receives one warning per problem.
    """
    for problem in catalog.problems:
        progress.warn(problem)


@contextmanager
def open_workspace(deadline: Deadline, progress: Progress) -> Iterator[Workspace]:
    """Open a temporary workspace; Ctrl-C inside becomes ``Interrupted``.

    Args:
        deadline: the budget of the whole command.
        progress: receives progress and warnings.
    """
    with tempfile.TemporaryDirectory(prefix="tl-") as folder, interruptible():
        yield Workspace(Path(folder), cache_dir(), deadline, progress, deadline.startup_s)


@contextmanager
def interruptible(state: str = "Nothing was published; computed features stay in the cache.") -> Iterator[None]:
    """Turn Ctrl-C into ``Interrupted`` with a sentence that says what was kept."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(state) from error
