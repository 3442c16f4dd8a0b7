"""The executor of this machine: one job after another, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from automl_tl.contracts import Answer, Executor, Job, Slots


class LocalExecutor(Executor):
    """Runs each job where the command runs."""

    def __init__(self, address: str | None = None) -> None:
        """Ignore ``address``: there is one place."""

    @property
    def slots(self) -> Slots:
        """See ``Executor``; a job may use all cores."""
        return Slots(num_cpus=1, num_gpus=0)

    def run(
        self, jobs: Iterable[Job], perform: Callable[[Job], Answer], is_over: Callable[[], bool]
    ) -> Iterator[tuple[Job, Answer]]:
        """See ``Executor``."""
        for job in jobs:
            if is_over():
                return
            yield job, perform(job)

    def close(self) -> None:
        """See ``Executor``; nothing runs."""
