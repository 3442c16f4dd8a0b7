"""Slurm as an executor: each job of automl_tl is one of Slurm, submitted by submitit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import submitit
from automl_tl.contracts import Answer, Executor, Job, Slots

POLL_S = 0.5


class SlurmExecutor(Executor):
    """Submits jobs to Slurm.

    Args:
        address: ``local`` runs processes on this machine instead, e.g. ``--on slurm://local``.
        num_jobs: most jobs at once.
        gpus_per_job: GPUs that each job may use.
        folder: of scripts, jobs and answers; all machines must see it.
        settings: options of ``sbatch``, such as ``partition="cpu"``.
    """

    def __init__(
        self,
        address: str | None = None,
        num_jobs: int = 8,
        gpus_per_job: int = 0,
        folder: str = "tl-jobs",
        **settings: object,
    ) -> None:
        self._num_jobs, self._gpus_per_job = num_jobs, gpus_per_job
        self._executor = submitit.AutoExecutor(folder, cluster=address or "slurm")
        self._settings = {f"slurm_{name}": value for name, value in settings.items()}

    @property
    def slots(self) -> Slots:
        """See ``Executor``."""
        return Slots(self._num_jobs, self._num_jobs * self._gpus_per_job)

    def run(
        self, jobs: Iterable[Job], perform: Callable[[Job], Answer], is_over: Callable[[], bool]
    ) -> Iterator[tuple[Job, Answer]]:
        """See ``Executor``."""
        source = iter(jobs)
        pending: list[tuple[Job, submitit.Job[Answer]]] = []
        try:
            while not is_over():
                for job in islice(source, self._num_jobs - len(pending)):
                    pending.append((job, self._submit(job, perform)))
                if not pending:
                    return
                finished = [pair for pair in pending if pair[1].done()]
                pending = [pair for pair in pending if pair not in finished]
                yield from ((job, _answer(submitted)) for job, submitted in finished)
                if not finished:
                    time.sleep(POLL_S)
        finally:
            for _, submitted in pending:
                submitted.cancel()

    def close(self) -> None:
        """See ``Executor``; ``run`` leaves nothing behind."""

    def _submit(self, job: Job, perform: Callable[[Job], Answer]) -> Any:  # noqa: ANN401 - submitit has loose types
        gpus = {"gpus_per_node": job.num_gpus} if job.num_gpus else {}
        name = f"tl-{job.task}"
        self._executor.update_parameters(name=name, cpus_per_task=max(job.num_cpus, 1), **gpus, **self._settings)
        return self._executor.submit(perform, job)


def _answer(submitted: Any) -> Answer:  # noqa: ANN401 - submitit has loose types
    try:
        answer: Answer = submitted.result()
    except Exception as error:  # the job was killed, or its time was up
        return Answer(error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return answer
